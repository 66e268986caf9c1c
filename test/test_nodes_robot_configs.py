"""Every file of config/robots moves a stand-in of its robot, and nothing before it is told to."""

import math
from pathlib import Path
import time

import pytest

pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from nodes_bench import delta_chunk  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import stamp  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from rclpy.node import Node  # noqa: E402
import ros_interfaces  # noqa: E402
from servo_stand_in import ServoStandIn  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from vla_msgs.msg import EndEffectorDeltaChunk  # noqa: E402
import yaml  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402
from vla_policy_node.nodes.conversions import quaternion_wxyz  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'config' / 'robots'
# Read by MoveIt Servo itself.
SERVO_FILES = {'fr3_servo_node.yaml'}
ROBOTS = sorted(path.stem for path in FOLDER.glob('*.yaml') if path.name not in SERVO_FILES)
TOOL = (0.45, 0.0, 0.3)


@pytest.fixture(scope='module', autouse=True)
def interfaces():
    ros_interfaces.provide()


@pytest.fixture
def graph():
    with running_graph() as graph:
        yield graph


class PoseFollower(Node):
    """
    Takes target poses as CRISP and FZI's controller do together, and records them.

    refused: why, one entry per message: a second publisher, a value that is not finite, a
    quaternion that is not of unit norm, another frame than the base.
    """

    def __init__(self, topic: str, base_frame: str) -> None:
        super().__init__('pose_follower')
        self._topic, self._base_frame = topic, base_frame
        self.accepted: list[PoseStamped] = []
        self.refused: list[str] = []
        self.create_subscription(PoseStamped, topic, self._on_target, 1)

    def _on_target(self, message: PoseStamped) -> None:
        numbers = quaternion_wxyz(message.pose.orientation)
        position = message.pose.position
        if self.count_publishers(self._topic) > 1:
            self.refused.append('second publisher')
        elif not all(map(math.isfinite, (position.x, position.y, position.z, *numbers))):
            self.refused.append('not finite')
        elif abs(math.hypot(*numbers) - 1.0) > 1e-6:
            self.refused.append('norm')
        elif message.header.frame_id != self._base_frame:
            self.refused.append('frame')
        else:
            self.accepted.append(message)


class TwistFollower(Node):
    """Records twists in its base frame."""

    def __init__(self, topic: str, base_frame: str) -> None:
        super().__init__('twist_follower')
        self.accepted: list[TwistStamped] = []
        self.refused: list[str] = []
        self.create_subscription(TwistStamped, topic, self.accepted.append, 1)


def settings(robot: str, node: str = '/**') -> dict:
    text = (FOLDER / f'{robot}.yaml').read_text(encoding='utf-8')
    return yaml.safe_load(text)[node]['ros__parameters']


def controller(graph, robot: str, **values) -> ControllerNode:
    # The stand-ins have no tf; and a gripper has tests of its own.
    values = {'pose_source': 'topic', 'gripper_interface': 'none', **values}
    return graph.add(ControllerNode(
        cli_args=['--ros-args', '--params-file', str(FOLDER / f'{robot}.yaml')],
        parameter_overrides=overrides(**values)))


def stand_in(graph, values: dict):
    if values.get('robot_interface') == 'moveit_servo':
        return graph.add(ServoStandIn(values['servo_node'].strip('/')))
    follower = TwistFollower if values['output_mode'] == 'twist' else PoseFollower
    return graph.add(follower(values['command_topic'], values['base_frame']))


@pytest.mark.parametrize('robot', ROBOTS)
def test_a_robot_is_a_dry_run_until_told_otherwise_and_stays_slow_and_inside_a_box(graph, robot):
    node = controller(graph, robot)
    assert node.values.dry_run and node.values.workspace_enabled
    assert node.values.max_linear_mps <= 0.25
    assert 'workspace_min_m' in settings(robot) or robot == 'simulated_robot'


@pytest.mark.parametrize('robot', ROBOTS)
def test_the_stand_in_of_a_robot_follows_its_commands(graph, robot):
    values = settings(robot)
    robot_node = stand_in(graph, values)
    poses = graph.node.create_publisher(
        PoseStamped, values.get('tool_pose_topic', '/tool_pose'), 1)
    actions = graph.node.create_publisher(
        EndEffectorDeltaChunk, '/controller_node/action_chunk', 1)
    node = controller(
        graph, robot, dry_run=False,
        tool_pose_topic=values.get('tool_pose_topic', '/tool_pose'))
    wait_until(lambda: node._robot._servo is None
               or node._robot._servo._parameters.service_is_ready()
               and not node._robot._servo._watch.silent(time.monotonic()))
    wait_until(lambda: actions.get_subscription_count() and poses.get_subscription_count())
    answer = graph.call(SetBool, '/controller_node/enable', SetBool.Request(data=True))
    assert answer.success, answer.message

    sequence = 0

    def followed():
        nonlocal sequence
        pose = PoseStamped()
        pose.header.frame_id, pose.header.stamp = values['base_frame'], stamp(graph.node)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = TOOL
        pose.pose.orientation.w = 1.0
        poses.publish(pose)
        sequence += 1
        actions.publish(delta_chunk(
            graph.node, sequence, frame=values.get('action_frame') or values['base_frame']))
        time.sleep(0.02)
        return any(_moves(message) for message in robot_node.accepted)

    wait_until(followed)
    assert getattr(robot_node, 'refused', []) == getattr(robot_node, 'discarded', []) == []
    assert {message.header.frame_id for message in robot_node.accepted} == {values['base_frame']}


def _moves(message) -> bool:
    if isinstance(message, TwistStamped):
        return message.twist.linear.x > 0.01
    return message.pose.position.x > TOOL[0] + 0.002


def test_servo_of_the_fr3_takes_what_the_controller_of_the_fr3_sends():
    servo = settings('fr3_servo_node', 'servo_node')['moveit_servo']
    values = settings('fr3_servo')
    assert servo['command_in_type'] == 'speed_units'
    assert values['servo_node'] == '/servo_node'
    assert values['command_topic'] == servo['cartesian_command_in_topic'].replace(
        '~', values['servo_node'])
    assert servo['scale']['linear'] >= 0.25 and servo['scale']['rotational'] >= 1.0


@pytest.mark.parametrize('robot', ROBOTS)
def test_every_robot_has_its_row_in_the_documentation(robot):
    text = (ROOT / 'docs' / 'robots.md').read_text(encoding='utf-8')
    assert f'config/robots/{robot}.yaml' in text
