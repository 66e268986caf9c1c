"""The one table of processes, topics and environment that launch files and the demo share."""

import subprocess
import sys

import pytest

from vla_policy_node import bringup


def test_the_command_line_of_a_node_names_parameters_and_remappings():
    process = bringup.NodeProcess(
        name='policy_node', executable='policy_node', parameters_file='/etc/p.yaml',
        parameters={'checkpoint': 'a b', 'autostart': False, 'rate_hz': 5.0},
        remappings=(('~/image', '/camera/image_raw'),))
    assert process.command('python3') == [
        'python3', '-m', 'vla_policy_node.nodes.policy_node',
        '--ros-args', '-r', '__node:=policy_node', '--params-file', '/etc/p.yaml',
        '-r', '~/image:=/camera/image_raw',
        '-p', 'checkpoint:="a b"', '-p', 'autostart:=false', '-p', 'rate_hz:=5.0']


def test_the_demo_starts_the_robot_first_and_moves_it_for_real():
    robot, policy, controller = bringup.demo_processes('models/x')
    assert [robot.name, policy.name, controller.name] == [
        'simulated_robot', 'policy_node', 'controller_node']
    assert policy.parameters == {'checkpoint': 'models/x', 'autostart': False}
    assert controller.parameters['dry_run'] is False


def test_every_command_of_the_controller_reaches_the_simulated_robot():
    targets = dict(bringup.REMAPPINGS['controller_node'])
    assert targets.pop('~/action_chunk') == '/policy_node/action_chunk'
    assert all(target == f'/simulated_robot/{source[2:]}' for source, target in targets.items())


@pytest.mark.parametrize(('distro', 'names'), [
    ('jazzy', {'FASTRTPS_DEFAULT_PROFILES_FILE'}),
    ('kilted', {'FASTDDS_DEFAULT_PROFILES_FILE'}),
    ('', {'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'}),
])
def test_the_profile_is_named_as_the_release_reads_it(monkeypatch, distro, names):
    monkeypatch.setenv('ROS_DISTRO', distro)
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    environment = bringup.dds_environment()
    assert set(environment) == names
    assert all(value.endswith('config/fastdds_profile.xml') for value in environment.values())


def test_a_profile_that_the_user_chose_is_kept(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'kilted')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/home/me/profile.xml')
    assert bringup.dds_environment() == {
        'FASTDDS_DEFAULT_PROFILES_FILE': '/home/me/profile.xml'}


@pytest.mark.parametrize(('processors', 'threads'), [(1, 1), (2, 1), (3, 1), (16, 8)])
def test_a_model_gets_half_of_the_processors_but_at_least_one(monkeypatch, processors, threads):
    monkeypatch.setattr(bringup.os, 'sched_getaffinity', lambda _: set(range(processors)))
    assert bringup.inference_threads() == threads


def test_launch_files_can_read_the_table_without_numpy_or_rclpy():
    code = ('import sys, vla_policy_node.bringup;'
            'print([m for m in ("numpy", "rclpy", "torch") if m in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
