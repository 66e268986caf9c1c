"""
Which processes make up a running robot or demo, and how their topics are joined.

The launch files and the demo runner read the same tables, so a topic name lives in one place.
Standard library only; knows nothing of rclpy and starts nothing itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import json
import os
from pathlib import Path
import sys

PACKAGE = 'vla_policy_node'

CAMERA_TOPIC = '/camera/image_raw'

# node name -> ((private name, topic), ...) when the simulated robot is the robot.
REMAPPINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    'policy_node': (
        ('~/image', CAMERA_TOPIC),
    ),
    'controller_node': (
        ('~/action_chunk', '/policy_node/action_chunk'),
        ('~/tool_pose', '/simulated_robot/tool_pose'),
        ('~/delta_twist_cmds', '/simulated_robot/delta_twist_cmds'),
        ('~/target_pose', '/simulated_robot/target_pose'),
        ('~/gripper_command', '/simulated_robot/gripper_command'),
    ),
    'simulated_robot': (),
}

# node name -> executable of this package (`ros2 run vla_policy_node <executable>`).
EXECUTABLES: Mapping[str, str] = {
    'policy_node': 'policy_node',
    'controller_node': 'controller_node',
    'simulated_robot': 'simulator_node',
}

# The releases whose Fast DDS reads the old name of the profile variable.
_OLD_PROFILE_DISTROS = ('humble', 'iron', 'jazzy')


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """
    One node in one process.

    name: node name without namespace. executable: console script of this package.
    parameters_file: YAML given before `parameters`, which win. remappings: (from, to) pairs.
    """

    name: str
    executable: str
    parameters_file: Path
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()

    @property
    def module(self) -> str:
        """Python module whose `main` is the executable."""
        return f'{PACKAGE}.nodes.{self.executable}'

    def ros_arguments(self) -> list[str]:
        """Return the command line from `--ros-args` on."""
        arguments = ['--ros-args', '-r', f'__node:={self.name}',
                     '--params-file', str(self.parameters_file)]
        for source, target in self.remappings:
            arguments += ['-r', f'{source}:={target}']
        for name, value in self.parameters.items():
            # A JSON scalar is a YAML scalar of the same type, strings quoted.
            arguments += ['-p', f'{name}:={json.dumps(value)}']
        return arguments

    def command(self, python: str = sys.executable) -> list[str]:
        """Return the whole command line, run by interpreter `python`."""
        return [python, '-m', self.module, *self.ros_arguments()]


def share_directory() -> Path:
    """
    Return the directory that holds config/ and launch/: the source tree or the install space.

    Raises FileNotFoundError when the package is in neither.
    """
    source = Path(__file__).resolve().parents[1]
    if (source / 'config').is_dir():
        return source
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        share = Path(prefix) / 'share' / PACKAGE
        if prefix and (share / 'config').is_dir():
            return share
    raise FileNotFoundError(
        f'expected a config directory in {source} or in a prefix of AMENT_PREFIX_PATH, found'
        ' none; source the setup file of the workspace')


def parameters_file(executable: str) -> Path:
    """Return the YAML file with the parameters of an executable of this package."""
    return share_directory() / 'config' / f'{executable}.yaml'


def dds_environment() -> dict[str, str]:
    """
    Return the variables that make Fast DDS carry camera frames through shared memory.

    They must be set before a process makes its first participant. A profile that the user has
    chosen already is kept.
    """
    profile = str(share_directory() / 'config' / 'fastdds_profile.xml')
    distro = os.environ.get('ROS_DISTRO', '')
    names = ['FASTRTPS_DEFAULT_PROFILES_FILE']
    if distro not in _OLD_PROFILE_DISTROS:
        names = ['FASTDDS_DEFAULT_PROFILES_FILE'] + ([] if distro else names)
    return {name: os.environ.get(name, profile) for name in names}


def inference_threads() -> int:
    """
    Return how many CPU threads a model gets beside a robot: half of the processors, at least one.

    As many as there are processors collapse beside the robot's own processes: an inference of
    40 ms took 3 s on two busy ones.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2)


def node_process(name: str, **parameters: bool | int | float | str) -> NodeProcess:
    """Return the description of one node of `EXECUTABLES` with the remappings of the demo."""
    executable = EXECUTABLES[name]
    return NodeProcess(
        name=name,
        executable=executable,
        parameters_file=parameters_file(executable),
        parameters=parameters,
        remappings=REMAPPINGS[name])


def demo_processes(checkpoint: Path | str) -> tuple[NodeProcess, ...]:
    """
    Return the simulated robot, the policy and the controller of the demo, in starting order.

    The policy node waits for its lifecycle transitions; the controller sends what it computes
    once its enable service was called.
    """
    return (
        node_process('simulated_robot'),
        node_process('policy_node', checkpoint=str(checkpoint), autostart=False),
        node_process('controller_node', dry_run=False, output_mode='twist',
                     pose_source='topic'),
    )
