"""Start the policy node and the controller node of a robot; a dry run until told otherwise.

The arguments win over the parameter files. `ros2 launch vla_policy_node vla.launch.py --show-args`
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.actions import SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from vla_policy_node.bringup import CAMERA_TOPIC
from vla_policy_node.bringup import dds_environment
from vla_policy_node.bringup import PACKAGE


def shared(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


ARGUMENTS = [
    ('namespace', '', 'namespace of both nodes'),
    ('use_sim_time', 'false', 'take the time from /clock'),
    ('policy_params', shared('config', 'policy_node.yaml'), 'parameters of the policy node'),
    ('robot', 'controller_node', 'file below config/, such as robots/ur, of the robot'),
    ('controller_params', [shared('config'), '/', LaunchConfiguration('robot'), '.yaml'],
     'parameters of the controller node'),
    ('checkpoint', shared('models', 'tabletop'),
     'folder of the checkpoint, or owner/name of the hub'),
    ('unnorm_key', '', 'statistics to un-normalise with; empty where there is only one'),
    ('quantization', 'nf4', 'none, nf4 or int8'),
    ('autostart', 'true', 'configure and activate the policy node'),
    ('dry_run', 'true', 'compute commands and send none'),
    ('image_topic', CAMERA_TOPIC, 'camera image; its compressed form is <image_topic>/compressed'),
    ('tool_pose_topic', '~/tool_pose', 'pose of the tool (geometry_msgs/PoseStamped)'),
    # Unless given, what the parameter file of the robot names is used.
    ('twist_topic', '~/delta_twist_cmds', 'where twist commands go, as MoveIt Servo takes them'),
    ('pose_topic', '~/target_pose', 'where pose commands go, as Cartesian controllers take them'),
    ('gripper_topic', '~/gripper_command', 'where the wanted position of the gripper goes'),
]


def robot_node(executable: str, params: str, parameters: dict[str, type],
               remappings: list[tuple]) -> Node:
    """Describe one node, its parameters taken from the launch arguments of the same name."""
    values = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in {**parameters, 'use_sim_time': bool}.items()
    }
    return Node(
        package=PACKAGE, executable=executable, name=executable,
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration(params), values], remappings=remappings,
        ros_arguments=['--enclave', f'/vla/{executable}'], output='screen', emulate_tty=True)


def generate_launch_description() -> LaunchDescription:
    image_topic = LaunchConfiguration('image_topic')
    return LaunchDescription([
        *(SetEnvironmentVariable(name, value) for name, value in dds_environment().items()),
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, default, description in ARGUMENTS),
        robot_node(
            'policy_node', 'policy_params',
            {'checkpoint': str, 'unnorm_key': str, 'quantization': str, 'autostart': bool},
            [('~/image', image_topic), ('~/image/compressed', [image_topic, '/compressed'])]),
        robot_node(
            'controller_node', 'controller_params', {'dry_run': bool},
            # Relative, so that both nodes meet in any namespace.
            [('~/action_chunk', 'policy_node/action_chunk'),
             ('~/tool_pose', LaunchConfiguration('tool_pose_topic')),
             ('~/delta_twist_cmds', LaunchConfiguration('twist_topic')),
             ('~/target_pose', LaunchConfiguration('pose_topic')),
             ('~/gripper_command', LaunchConfiguration('gripper_topic'))]),
    ])
