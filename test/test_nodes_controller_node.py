"""The controller node over real DDS: what it sends, when it is silent, whom it believes."""

import time

import pytest

pytest.importorskip('rclpy')

from controller_bench import Bench  # noqa: E402
from controller_bench import NAME  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import stamp  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from vla_msgs.msg import ControllerStatus  # noqa: E402
from vla_msgs.msg import EndEffectorDeltaChunk  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402
from vla_policy_node.nodes.conversions import time_ns  # noqa: E402
from vla_policy_node.nodes.parameters import ParameterError  # noqa: E402
from vla_policy_node.nodes.status import CONTROLLER_TEXT  # noqa: E402


@pytest.fixture
def graph():
    with running_graph() as graph:
        yield graph


@pytest.fixture
def bench(graph):
    return Bench(graph)


def test_an_enabled_controller_turns_a_delta_into_a_velocity(bench):
    bench.enable()
    fastest = bench.act_until(lambda: next(
        (t for t in bench.twists if t.twist.linear.x == pytest.approx(0.05)), None))
    assert fastest.header.frame_id == 'base'
    assert wait_until(lambda: bench.grips)[0].data == 1.0


def test_nothing_is_sent_before_it_is_enabled(bench):
    bench.act_until(lambda: bench.status().chunks_rejected > 3)
    assert bench.twists == [] and bench.grips == []
    assert bench.status().state == ControllerStatus.DISABLED
    assert 'not_enabled' in bench.status().last_rejection


def test_a_dry_run_reports_commands_and_sends_none(graph):
    bench = Bench(graph, dry_run=True)
    bench.enable()
    status = bench.act_until(lambda: next(
        (s for s in bench.statuses if s.command.linear.x > 0.04), None))
    assert status.dry_run and status.commands_sent == 0
    assert bench.twists == [] and bench.grips == []


def test_dry_run_is_the_default(graph):
    node = graph.add(ControllerNode())
    assert node.get_parameter('dry_run').value is True


def test_without_a_fresh_action_zeros_follow_then_silence(bench):
    bench.enable()
    bench.act_until(bench.moving)
    wait_until(lambda: bench.status().state == ControllerStatus.WAITING)
    silent_ns = bench.now_ns()
    time.sleep(0.3)
    assert bench.sent_after(silent_ns) == []
    last_move_ns = time_ns(bench.moving()[-1].header.stamp)
    zeros = bench.sent_after(last_move_ns)
    assert len(zeros) >= 5
    # Half a second of them, less what a busy machine takes between two ticks.
    assert time_ns(zeros[-1].header.stamp) - last_move_ns > 250_000_000


def test_a_fresh_action_after_the_silence_moves_again(bench):
    bench.enable()
    bench.act_until(bench.moving)
    wait_until(lambda: bench.status().state == ControllerStatus.WAITING)
    bench.twists.clear()
    bench.act_until(bench.moving)


def test_disabling_stops_and_only_enabling_moves_again(bench):
    bench.enable()
    bench.act_until(bench.moving)
    bench.enable(False)
    bench.act_until(lambda: bench.node.controller.silent)
    silent_ns = bench.now_ns()
    assert bench.twists[-1].twist.linear.x == 0
    bench.act_for(0.2)
    assert bench.sent_after(silent_ns) == []
    bench.twists.clear()
    bench.enable()
    bench.act_until(bench.moving)


def test_while_a_second_publisher_exists_nothing_is_believed(bench):
    bench.enable()
    second = bench.graph.node.create_publisher(
        EndEffectorDeltaChunk, f'{NAME}/action_chunk', 1)
    wait_until(lambda: bench.node.count_publishers(f'{NAME}/action_chunk') == 2)
    bench.act_until(lambda: 'second_publisher' in bench.status().last_rejection)
    assert bench.twists == []
    bench.graph.node.destroy_publisher(second)


def test_a_stale_observation_is_rejected_with_its_age(bench):
    bench.enable()
    bench.act_until(
        lambda: 'stale_observation' in bench.status().last_rejection, age_s=1.0)
    assert bench.twists == []


def test_an_action_in_another_frame_is_rejected(bench):
    bench.enable()
    bench.act_until(lambda: "found 'world'" in bench.status().last_rejection, frame='world')
    assert bench.twists == []


def test_a_chunk_is_answered_at_once_and_its_latency_reported(bench):
    bench.enable()
    started_s = time.monotonic()
    status = bench.act_until(lambda: next((s for s in bench.statuses if s.chunks_accepted), None))
    assert status.state == ControllerStatus.MOVING
    assert 0 < status.camera_to_command_ms < 1e3 * (time.monotonic() - started_s)


def test_shutting_down_ends_with_zeros(bench):
    bench.enable()
    bench.act_until(bench.moving)
    bench.graph.stop_spinning(bench.node)
    bench.node.close()
    wait_until(lambda: bench.twists[-1].twist.linear.x == 0)
    assert bench.node.controller.silent


def test_without_a_pose_the_workspace_holds_the_tool_still(graph):
    bench = Bench(graph, pose_source='topic', workspace_enabled=True)
    bench.enable()
    bench.act_until(lambda: bench.status().state == ControllerStatus.HOLDING)
    assert not bench.moving()


def test_with_a_pose_from_the_topic_the_target_pose_advances(graph):
    bench = Bench(graph, pose_source='topic', workspace_enabled=True, output_mode='pose')
    publisher = graph.node.create_publisher(PoseStamped, f'{NAME}/tool_pose', 1)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    pose = PoseStamped()
    pose.header.frame_id = 'base'
    pose.pose.position.x, pose.pose.position.z = 0.5, 0.3
    pose.pose.orientation.w = 1.0
    bench.enable()

    def advanced() -> bool:
        pose.header.stamp = stamp(graph.node)
        publisher.publish(pose)
        return any(target.pose.position.x > 0.51 for target in bench.poses)

    bench.act_until(advanced)
    assert all(0.5 <= target.pose.position.x < 0.56 for target in bench.poses)
    assert bench.twists == []


def test_a_pose_in_another_frame_is_not_used(graph):
    bench = Bench(graph, pose_source='topic', workspace_enabled=True)
    publisher = graph.node.create_publisher(PoseStamped, f'{NAME}/tool_pose', 1)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    pose = PoseStamped()
    pose.header.frame_id = 'camera'
    pose.pose.orientation.w = 1.0
    bench.enable()
    for _ in range(5):
        pose.header.stamp = stamp(graph.node)
        publisher.publish(pose)
        bench.act_for(0.03)
    bench.act_until(lambda: bench.status().state == ControllerStatus.HOLDING)
    assert not bench.moving()


def test_a_workspace_without_a_pose_source_is_refused(graph):
    with pytest.raises(ValueError, match='pose_source: expected topic or tf'):
        graph.add(ControllerNode(parameter_overrides=overrides(pose_source='none')))


def test_an_unknown_parameter_is_refused(graph):
    with pytest.raises(ParameterError, match='did you mean'):
        ControllerNode(parameter_overrides=overrides(max_linear_mp=0.1))


def test_every_state_of_the_message_has_a_text():
    states = {getattr(ControllerStatus, name) for name in (
        'DISABLED', 'WAITING', 'MOVING', 'STOPPING', 'HOLDING', 'FAULT')}
    assert states == set(CONTROLLER_TEXT)
