"""Start the simulated robot together with vla.launch.py, its commands going to the robot."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.actions import IncludeLaunchDescription
from launch.actions import SetEnvironmentVariable
from launch.actions import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from vla_policy_node.bringup import dds_environment
from vla_policy_node.bringup import EXECUTABLES
from vla_policy_node.bringup import PACKAGE
from vla_policy_node.bringup import REMAPPINGS

SIMULATOR = 'simulated_robot'

# Launch argument of vla.launch.py -> private name of the controller that it joins to the robot.
JOINED = {
    'tool_pose_topic': '~/tool_pose',
    'twist_topic': '~/delta_twist_cmds',
    'pose_topic': '~/target_pose',
    'gripper_topic': '~/gripper_command',
}


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare(PACKAGE)
    topics = dict(REMAPPINGS['controller_node'])
    return LaunchDescription([
        *(SetEnvironmentVariable(name, value) for name, value in dds_environment().items()),
        # An argument declared here first keeps this default in the included file.
        DeclareLaunchArgument(
            'dry_run', default_value='false', description='compute commands and send none'),
        *(DeclareLaunchArgument(
            argument, default_value=topics[name], description=f'topic that {name} is joined to')
          for argument, name in JOINED.items()),
        DeclareLaunchArgument(
            'simulator_params', description='parameters of the simulated robot',
            default_value=PathJoinSubstitution([share, 'config', 'simulator_node.yaml'])),
        Node(
            package=PACKAGE, executable=EXECUTABLES[SIMULATOR], name=SIMULATOR,
            parameters=[LaunchConfiguration('simulator_params')],
            remappings=REMAPPINGS[SIMULATOR], output='screen', emulate_tty=True,
            on_exit=Shutdown(reason='the simulated robot ended')),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            PathJoinSubstitution([share, 'launch', 'vla.launch.py']))),
    ])
