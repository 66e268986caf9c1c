"""The controller waits for no lock that another process holds: it shares no memory with them."""

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
