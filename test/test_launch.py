"""The launch files describe the nodes of the demo; needs a ROS installation."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip('launch_ros')

from launch import LaunchContext  # noqa: E402
from launch import LaunchDescription  # noqa: E402
from launch.actions import DeclareLaunchArgument  # noqa: E402
from launch.actions import SetEnvironmentVariable  # noqa: E402
from launch.utilities import perform_substitutions  # noqa: E402
from launch_ros.actions import Node  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = ('vla.launch.py', 'demo.launch.py')


def describe(name: str) -> LaunchDescription:
    path = ROOT / 'launch' / name
    spec = importlib.util.spec_from_file_location(name.partition('.')[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def executables(description: LaunchDescription) -> list[str]:
    return [entity.node_executable for entity in description.entities if isinstance(entity, Node)]


def defaults(description: LaunchDescription) -> dict[str, str]:
    """Return the default of every argument declared in this file itself."""
    context = LaunchContext()
    values = context.launch_configurations
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            # A default may be made from the arguments before it.
            values[entity.name] = perform_substitutions(context, entity.default_value)
    return dict(values)


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_a_launch_file_stays_short_and_declarative(name):
    text = (ROOT / 'launch' / name).read_text()
    assert text.count('\n') <= 80
    assert 'OpaqueFunction' not in text


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_the_dds_profile_is_set_before_the_first_node(name):
    entities = describe(name).entities
    profile = next(index for index, entity in enumerate(entities)
                   if isinstance(entity, SetEnvironmentVariable))
    node = next(index for index, entity in enumerate(entities) if isinstance(entity, Node))
    assert profile < node


def test_the_robot_launch_file_starts_policy_and_controller():
    assert executables(describe('vla.launch.py')) == ['policy_node', 'controller_node']


def test_the_robot_launch_file_is_a_dry_run_until_told_otherwise():
    assert defaults(describe('vla.launch.py'))['dry_run'] == 'true'


def test_the_robot_launch_file_leaves_everything_else_to_the_file_of_the_robot():
    values = defaults(describe('vla.launch.py'))
    assert values['controller_params'].endswith('/config/controller_node.yaml')
    assert {'output_mode', 'base_frame', 'pose_source'}.isdisjoint(values)


def test_the_demo_adds_the_simulated_robot_and_moves_it():
    description = describe('demo.launch.py')
    assert executables(description) == ['simulator_node']
    assert defaults(description)['dry_run'] == 'false'
    assert defaults(description)['twist_topic'] == '/simulated_robot/delta_twist_cmds'
