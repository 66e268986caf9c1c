"""MoveIt Servo behind the controller: the handshake, what it is sent, and what its status does."""

import math
import sys

import pytest

pytest.importorskip('rclpy')

from controller_bench import Bench  # noqa: E402
from controller_bench import NAME  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import stamp  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
import ros_interfaces  # noqa: E402
import servo_stand_in  # noqa: E402
from servo_stand_in import ServoStandIn  # noqa: E402
from vla_msgs.msg import ControllerStatus  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402
from vla_policy_node.nodes.robot_servo import ServoWatch  # noqa: E402
from vla_policy_node.nodes.runtime import StartError  # noqa: E402

TWISTS = '/servo_node/delta_twist_cmds'
SETTINGS = {'robot_interface': 'moveit_servo', 'command_topic': TWISTS,
            'gripper_interface': 'none'}


@pytest.fixture(scope='module', autouse=True)
def interfaces():
    ros_interfaces.provide()


@pytest.fixture
def graph():
    with running_graph() as graph:
        yield graph


def started(graph, servo=None, **values):
    """Return a stand-in for Servo and a controller that knows it, not yet enabled."""
    servo = graph.add(servo or ServoStandIn())
    bench = Bench(graph, twist_topic=TWISTS, **{**SETTINGS, **values})
    wait_until(lambda: bench.node._robot._servo._switch.service_is_ready())
    wait_until(lambda: bench.node._robot._servo._parameters.service_is_ready())
    wait_until(lambda: servo.silent or servo.count_subscribers('/servo_node/status') > 0)
    wait_until(lambda: servo.silent or not bench.node._robot._servo._watch.silent(0.0))
    return servo, bench


@pytest.fixture
def moving(graph):
    servo, bench = started(graph)
    bench.enable()
    bench.act_until(bench.moving)
    return servo, bench


# What the stand-in promises, as MoveIt Servo does


@pytest.fixture
def alone(graph):
    """Return a stand-in and a function that sends it a twist, changed by a function."""
    servo = graph.add(ServoStandIn())
    publisher = graph.node.create_publisher(TwistStamped, TWISTS, 10)
    wait_until(lambda: publisher.get_subscription_count() == 1)

    def send(change=lambda twist: None):
        twist = TwistStamped()
        twist.header.frame_id, twist.header.stamp = 'base', stamp(graph.node)
        twist.twist.linear.x = 0.1
        change(twist)
        publisher.publish(twist)
    return servo, send


def test_the_stand_in_discards_what_comes_before_the_handshake(alone):
    servo, send = alone
    send()
    wait_until(lambda: servo.discarded == ['command type has not been set'])
    assert servo.accepted == []


@pytest.mark.parametrize(('change', 'reason'), [
    (lambda twist: setattr(twist.header, 'frame_id', ''), 'no frame'),
    (lambda twist: setattr(twist.twist.linear, 'y', math.nan), 'not finite'),
    (lambda twist: setattr(twist.twist.angular, 'z', math.inf), 'not finite')])
def test_the_stand_in_discards_commands_that_are_frameless_or_not_finite(alone, change, reason):
    servo, send = alone
    servo.kind = servo_stand_in.TWIST
    send(change)
    wait_until(lambda: servo.discarded == [reason])
    assert servo.accepted == []


def test_the_stand_in_halts_a_command_whose_stamp_is_a_tenth_of_a_second_old(alone):
    servo, send = alone
    servo.kind = servo_stand_in.TWIST
    send()
    wait_until(lambda: servo.stale_halts)
    assert servo.stale_halts == pytest.approx([0.1])


# The handshake


def test_servo_is_told_the_command_type_before_the_first_command(moving):
    servo, bench = moving
    assert servo.kind == servo_stand_in.TWIST
    assert servo.discarded == []
    assert servo.accepted[0].header.frame_id == 'base'


def test_servo_is_told_again_at_every_enabling(moving):
    servo, bench = moving
    bench.enable(False)
    servo.kind = None
    bench.enable()
    assert servo.kind == servo_stand_in.TWIST


def test_in_pose_mode_servo_is_told_poses_and_takes_them(graph):
    servo, bench = started(
        graph, output_mode='pose', command_topic='/servo_node/pose_target_cmds',
        pose_source='topic')
    publisher = graph.node.create_publisher(PoseStamped, f'{NAME}/tool_pose', 1)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    pose = PoseStamped()
    pose.header.frame_id, pose.pose.orientation.w = 'base', 1.0
    bench.enable()

    def accepted():
        pose.header.stamp = stamp(graph.node)
        publisher.publish(pose)
        return servo.accepted

    bench.act_until(accepted)
    assert servo.kind == servo_stand_in.POSE and servo.discarded == []


def refusal(bench):
    answer = bench.ask_to_enable()
    assert not answer.success
    bench.act_for(0.1)
    assert bench.twists == []
    return answer.message


def test_enabling_without_servo_is_refused(graph):
    bench = Bench(graph, twist_topic=TWISTS, **SETTINGS)
    assert refusal(bench) == 'expected MoveIt Servo as /servo_node, found nobody: start it'


def test_enabling_with_unitless_commands_is_refused(graph):
    _, bench = started(graph, ServoStandIn(units='unitless'))
    assert "'speed_units' in /servo_node, found 'unitless'" in refusal(bench)


def test_enabling_with_commands_too_rare_for_servo_is_refused(graph):
    _, bench = started(graph, command_rate_hz=20.0)
    assert 'at least 0.15 s in /servo_node, found 0.1 s' in refusal(bench)


def test_enabling_is_refused_when_servo_refuses_to_switch(graph):
    servo, bench = started(graph)
    servo.refuses = True
    assert 'to switch to twist commands, found a refusal' in refusal(bench)


def test_enabling_is_refused_while_servo_says_nothing(graph):
    servo = ServoStandIn()
    servo.silent = True
    _, bench = started(graph, servo)
    assert 'expected a status of /servo_node, found none' in refusal(bench)


def test_a_stop_while_servo_is_being_asked_wins_over_the_enabling(graph):
    servo, bench = started(graph)
    servo.before_switch = lambda: bench.node._on_stop('in between')
    assert refusal(bench) == 'another call or a stop came in between: enable again'
    assert 'emergency stop: in between' in bench.status().state_text


# While moving


def test_servo_ends_with_zeros_and_never_by_a_stale_command_that_moves(moving):
    servo, bench = moving
    bench.act_for(0.5)
    wait_until(lambda: bench.status().state == ControllerStatus.WAITING)
    wait_until(lambda: servo.stale_halts)
    assert servo.stale_halts[-1] == 0.0


def test_servo_halting_for_too_long_is_a_fault_that_says_why(moving):
    servo, bench = moving
    servo.status_code = servo_stand_in.HALTED_BY_COLLISION
    bench.act_until(lambda: bench.status().state == ControllerStatus.FAULT)
    assert 'halted before a collision for 0.5 s (stand-in)' in bench.status().state_text
    bench.expect_rest(0.1)


def test_servo_slowing_down_is_no_fault(moving):
    servo, bench = moving
    servo.status_code = servo_stand_in.DECELERATES
    bench.act_for(0.8)
    assert bench.status().state == ControllerStatus.MOVING


def test_servo_falling_silent_is_a_fault(moving):
    servo, bench = moving
    servo.silent = True
    bench.act_until(lambda: bench.status().state == ControllerStatus.FAULT)
    assert 'MoveIt Servo has sent no status for 0.5 s' in bench.status().state_text


def test_a_halt_that_ends_in_time_is_no_fault():
    watch = ServoWatch(timeout_s=0.5)
    for now_s, code in ((0.0, 5), (0.4, 5), (0.45, 0), (0.5, 5), (0.9, 5)):
        watch.hear(code, '', now_s)
        assert watch.trouble(True, now_s) == ''
    watch.hear(5, 'x' * 500, 1.1)
    assert watch.trouble(True, 1.1).startswith('MoveIt Servo: halted before a collision')
    assert len(watch.trouble(True, 1.1)) < 300


def test_an_old_halt_does_not_count_while_nothing_is_sent():
    watch = ServoWatch(timeout_s=0.5)
    for now_s in (0.0, 0.4, 0.8):
        watch.hear(6, '', now_s)
        assert watch.trouble(False, now_s) == ''
    assert watch.trouble(True, 0.9) == ''


# Without MoveIt


def test_without_moveit_msgs_one_line_says_what_to_install(graph, monkeypatch):
    for name in ('moveit_msgs', 'moveit_msgs.srv', 'moveit_msgs.msg'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StartError) as error:
        graph.add(ControllerNode(parameter_overrides=overrides(
            dry_run=False, pose_source='none', workspace_enabled=False, **SETTINGS)))
    assert str(error.value).startswith('expected the package moveit_msgs')
    assert 'moveit-msgs and source ROS 2' in str(error.value) and '\n' not in str(error.value)


def test_a_dry_run_does_not_need_moveit(graph, monkeypatch):
    monkeypatch.setitem(sys.modules, 'moveit_msgs', None)
    graph.add(ControllerNode(parameter_overrides=overrides(
        pose_source='none', workspace_enabled=False, **SETTINGS)))
