"""What keeps the controller node from moving: stops, deadman switch, rivals, a dead clock."""

import time

import pytest

pytest.importorskip('rclpy')

from controller_bench import Bench  # noqa: E402
from controller_bench import NAME  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import DurabilityPolicy  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from vla_msgs.msg import ControllerStatus  # noqa: E402
from vla_msgs.msg import EndEffectorDeltaChunk  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402

STOP_TOPIC = f'{NAME}/emergency_stop'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TWISTS = f'{NAME}/delta_twist_cmds'


@pytest.fixture
def graph():
    with running_graph() as graph:
        yield graph


@pytest.fixture
def bench(graph):
    bench = Bench(graph)
    bench.enable()
    bench.act_until(bench.moving)
    return bench


def stop(bench):
    answer = bench.graph.call(Trigger, f'{NAME}/stop', Trigger.Request())
    assert answer.success and 'until ~/enable' in answer.message


# Emergency stop


def test_the_stop_service_stops_until_enabled_again(bench):
    stop(bench)
    bench.expect_rest()
    assert bench.status().state == ControllerStatus.FAULT
    assert 'emergency stop: ~/stop was called' in bench.status().state_text
    bench.enable(False)
    bench.expect_rest(0.1)
    assert bench.status().state == ControllerStatus.FAULT
    bench.enable()
    bench.twists.clear()
    bench.act_until(bench.moving)


@pytest.mark.parametrize('qos', [LATCHED, 1], ids=['latched', 'volatile'])
def test_the_stop_topic_stops_whether_its_publisher_latches_or_not(bench, qos):
    button = bench.graph.node.create_publisher(Bool, STOP_TOPIC, qos)
    wait_until(lambda: button.get_subscription_count() > 0)
    button.publish(Bool(data=True))
    wait_until(lambda: bench.status().state == ControllerStatus.FAULT)
    bench.expect_rest(0.1)


def test_a_pressed_stop_must_be_released_and_then_enabled(bench):
    button = bench.graph.node.create_publisher(Bool, STOP_TOPIC, LATCHED)
    button.publish(Bool(data=True))
    wait_until(lambda: bench.status().state == ControllerStatus.FAULT)
    answer = bench.ask_to_enable()
    assert not answer.success and answer.message.startswith('the emergency stop is pressed')
    button.publish(Bool(data=False))
    bench.expect_rest()
    bench.enable()
    bench.twists.clear()
    bench.act_until(bench.moving)


def test_a_stop_pressed_before_the_controller_started_is_heard(graph):
    button = graph.node.create_publisher(Bool, STOP_TOPIC, LATCHED)
    button.publish(Bool(data=True))
    bench = Bench(graph)
    wait_until(lambda: bench.status().state == ControllerStatus.FAULT)
    assert not bench.ask_to_enable().success


# Deadman switch


def test_motion_lasts_only_while_the_deadman_topic_keeps_arriving(graph):
    bench = Bench(graph, deadman_topic='/deadman')
    switch = graph.node.create_publisher(Bool, '/deadman', 1)
    wait_until(lambda: switch.get_subscription_count() == 1)
    bench.enable()
    bench.act_until(lambda: 'deadman_released' in bench.status().last_rejection)
    assert bench.twists == []

    def moves_while_held():
        switch.publish(Bool(data=True))
        return bench.moving()

    bench.act_until(moves_while_held)
    bench.expect_rest()
    bench.twists.clear()
    bench.act_until(moves_while_held)


def test_without_a_deadman_topic_none_is_subscribed(bench):
    topics = dict(bench.graph.node.get_subscriber_names_and_types_by_node('controller_node', '/'))
    assert not [name for name in topics if 'deadman' in name]


# Somebody else


def test_rule_1_another_publisher_of_actions_stops_and_is_named(bench):
    rival = bench.graph.add(Node('rival'))
    rival.create_publisher(EndEffectorDeltaChunk, f'{NAME}/action_chunk', 1)
    bench.act_until(lambda: '/rival' in bench.status().last_rejection)
    bench.expect_rest(0.1)
    assert 'second_publisher' in bench.status().last_rejection


def test_another_publisher_of_commands_stops_and_is_named(bench):
    rival = bench.graph.add(Node('rival', namespace='/other'))
    publisher = rival.create_publisher(TwistStamped, TWISTS, 1)
    bench.act_until(lambda: bench.status().state == ControllerStatus.FAULT)
    assert f'no other publisher on {TWISTS}, found /other/rival' in bench.status().state_text
    rival.destroy_publisher(publisher)
    wait_until(lambda: bench.node.count_publishers(TWISTS) == 1)
    bench.expect_rest()
    bench.enable()
    bench.twists.clear()
    bench.act_until(bench.moving)


def test_enabling_is_refused_while_another_publisher_commands_the_robot(graph):
    graph.node.create_publisher(TwistStamped, TWISTS, 1)
    bench = Bench(graph)
    wait_until(lambda: bench.node.count_publishers(TWISTS) == 2)
    answer = bench.ask_to_enable()
    assert not answer.success and 'found /tester: stop it' in answer.message
    bench.act_for(0.1)
    assert bench.twists == [] and bench.status().state == ControllerStatus.DISABLED


def test_a_dry_run_leaves_the_command_topic_to_others(graph):
    bench = Bench(graph, dry_run=True)
    graph.node.create_publisher(TwistStamped, TWISTS, 1)
    wait_until(lambda: bench.node.count_publishers(TWISTS) > 0)
    assert bench.node.count_publishers(TWISTS) == 1
    bench.enable()


@pytest.mark.parametrize(('mode', 'topic'), [('twist', TWISTS), ('pose', f'{NAME}/target_pose')])
def test_rule_5_no_command_is_kept_for_a_late_listener(graph, mode, topic):
    graph.add(ControllerNode(parameter_overrides=overrides(dry_run=False, output_mode=mode)))
    [info] = wait_until(lambda: graph.node.get_publishers_info_by_topic(topic))
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_enabling_says_when_nobody_listens(graph):
    node = graph.add(ControllerNode(parameter_overrides=overrides(
        dry_run=False, command_topic='/nowhere', gripper_interface='none')))
    bench_answer = Bench.ask_to_enable
    answer = bench_answer(type('Asker', (), {'graph': graph}))
    assert answer.success and answer.message == 'enabled; nobody listens on /nowhere'
    assert node.controller.enabled


def test_a_topic_of_the_parameters_is_used_and_a_remapping_wins(graph):
    values = overrides(dry_run=False, command_topic='/from_parameter')
    graph.add(ControllerNode(parameter_overrides=values))
    wait_until(lambda: graph.node.count_publishers('/from_parameter') == 1)
    rules = ['--ros-args', '-r', '~/delta_twist_cmds:=/from_rule', '-r', '__node:=second']
    graph.add(ControllerNode(parameter_overrides=values, cli_args=rules))
    wait_until(lambda: graph.node.count_publishers('/from_rule') == 1)
    assert graph.node.count_publishers('/from_parameter') == 1


def test_a_remapping_onto_the_same_name_leaves_the_topic_of_the_parameters(graph):
    rules = ['--ros-args', '-r', '~/delta_twist_cmds:=~/delta_twist_cmds']
    graph.add(ControllerNode(
        parameter_overrides=overrides(dry_run=False, command_topic='/from_parameter'),
        cli_args=rules))
    wait_until(lambda: graph.node.count_publishers('/from_parameter') == 1)


# Exceptions


def test_rule_2_an_exception_while_moving_is_a_fault_that_ends_with_zeros(bench):
    output = bench.node._robot._output
    send = output.send

    def fail_once(_):
        output.send = send
        raise OSError('no space left')

    output.send = fail_once
    bench.act_until(lambda: bench.status().state == ControllerStatus.FAULT)
    assert 'OSError: no space left' in bench.status().state_text
    bench.expect_rest(0.1)
    assert bench.twists[-1].twist.linear.x == 0


# Simulated time


class ClockBench(Bench):
    """A controller on simulated time, whose clock the test turns."""

    def __init__(self, graph):
        self.seconds = 1000.0
        self.clock = graph.node.create_publisher(Clock, '/clock', 1)
        super().__init__(graph, use_sim_time=True, clock_timeout_s=0.2)

    def turn(self, by_s=0.05):
        self.seconds += by_s
        message = Clock()
        message.clock.sec, message.clock.nanosec = int(self.seconds), 0
        message.clock.nanosec = round((self.seconds % 1.0) * 1e9)
        self.clock.publish(message)

    def act(self, **values):
        """Send an action observed at the simulated time."""
        super().act(age_s=self.graph.node.get_clock().now().nanoseconds * 1e-9 - self.seconds,
                    **values)

    def turn_until(self, condition):
        def value():
            self.turn()
            return condition()
        return self.act_until(value)


def test_with_simulated_time_nothing_moves_before_the_clock_does(graph):
    bench = ClockBench(graph)
    time.sleep(0.3)
    answer = bench.ask_to_enable()
    assert not answer.success and '/clock' in answer.message
    bench.act_for(0.1)
    assert bench.twists == []


def test_a_paused_simulation_stops_and_going_on_moves_with_fresh_actions(graph):
    bench = ClockBench(graph)
    wait_until(lambda: bench.turn() or not bench.node.controller._clock.stands_still
               and bench.node.controller._clock.ros_s > 1000.0)
    bench.enable()
    bench.turn_until(bench.moving)
    wait_until(lambda: bench.twists[-1].twist.linear.x == 0.0)
    wait_until(lambda: bench.node.controller.silent)
    sent = len(bench.twists)
    bench.act_for(0.3)
    assert len(bench.twists) == sent
    bench.twists.clear()
    bench.turn_until(bench.moving)


def test_a_simulation_set_back_stops_and_moves_again(graph):
    bench = ClockBench(graph)
    wait_until(lambda: bench.turn() or bench.node.controller._clock.ros_s > 1000.0)
    bench.enable()
    bench.turn_until(bench.moving)
    bench.seconds -= 500.0
    bench.turn()
    wait_until(lambda: bench.node.controller.counters.clock_rewinds == 1)
    wait_until(lambda: bench.twists[-1].twist.linear.x == 0.0)
    bench.twists.clear()
    bench.turn_until(bench.moving)
