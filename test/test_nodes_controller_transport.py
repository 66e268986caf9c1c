"""The controller waits for no lock that another process holds: it shares no memory with them."""

import os
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from vla_policy_node.bringup import dds_environment  # noqa: E402
from vla_policy_node.bringup import share_directory  # noqa: E402
from vla_policy_node.nodes.transport import avoid_shared_memory  # noqa: E402

NAMES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
CONFIG = share_directory() / 'config'


@pytest.mark.parametrize('profile', [None, CONFIG / 'fastdds_profile.xml'])
def test_the_profile_of_this_package_is_replaced_by_one_without_shared_memory(
        monkeypatch, profile):
    monkeypatch.delenv('ROS_AUTOMATIC_DISCOVERY_RANGE', raising=False)
    for name in NAMES:
        monkeypatch.setenv(name, str(profile))
        if profile is None:
            monkeypatch.delenv(name)
    avoid_shared_memory()
    assert set(map(Path, dds_environment().values())) == {CONFIG / 'fastdds_small_messages.xml'}


def test_a_profile_of_the_user_is_kept(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, '/home/me/profile.xml')
    avoid_shared_memory()
    assert set(dds_environment().values()) == {'/home/me/profile.xml'}


@pytest.mark.parametrize(('variable', 'value'), [
    ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST'), ('ROS_LOCALHOST_ONLY', '1')])
def test_on_one_machine_alone_it_looks_for_others_by_itself_without_shared_memory(
        monkeypatch, variable, value):
    for name in NAMES:
        monkeypatch.setenv(name, str(CONFIG / 'fastdds_profile.xml'))
    # Afterwards both are as they were.
    for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'):
        monkeypatch.setenv(name, '')
    monkeypatch.setenv(variable, value)
    avoid_shared_memory()
    assert set(map(Path, dds_environment().values())) == {
        CONFIG / 'fastdds_small_messages_localhost.xml'}
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'SYSTEM_DEFAULT'
    assert 'ROS_LOCALHOST_ONLY' not in os.environ


@pytest.mark.parametrize(('name', 'value', 'profile'), [
    ('ROS_STATIC_PEERS', '192.168.0.7', CONFIG / 'fastdds_profile.xml'),
    ('ROS_LOG_DIR', '', '/home/me/profile.xml')])
def test_a_range_is_kept_that_it_could_not_keep_itself(monkeypatch, name, value, profile):
    for variable in NAMES:
        monkeypatch.setenv(variable, str(profile))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv(name, value)
    avoid_shared_memory()
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
