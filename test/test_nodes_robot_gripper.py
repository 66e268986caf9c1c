"""The gripper behind the controller, told on a change only: a topic or an action."""

import sys

import pytest

pytest.importorskip('rclpy')

from controller_bench import Bench  # noqa: E402
from controller_bench import NAME  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from rclpy.action import ActionServer  # noqa: E402
from rclpy.action import GoalResponse  # noqa: E402
from rclpy.node import Node  # noqa: E402
import ros_interfaces  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402
from vla_policy_node.nodes.runtime import StartError  # noqa: E402

ACTION = '/gripper_controller/gripper_cmd'
FINGERS = {'gripper_action': ACTION, 'gripper_open_position': 0.04,
           'gripper_closed_position': 0.002, 'gripper_max_effort': 15.0}
KINDS = {
    'gripper_command': FINGERS,
    'parallel_gripper_command': {**FINGERS, 'gripper_joint': 'finger_joint'},
}


@pytest.fixture(scope='module', autouse=True)
def interfaces():
    ros_interfaces.provide()


@pytest.fixture
def graph():
    with running_graph() as graph:
        yield graph


class GripperStandIn(Node):
    """
    Serves a gripper action at once and records the goals.

    refuses: rejects goals. ends: how a goal ends: 'reached', 'stalled' or 'aborted'.
    """

    def __init__(self, kind: str) -> None:
        from control_msgs import action
        super().__init__('gripper_controller')
        self._type = {'gripper_command': action.GripperCommand,
                      'parallel_gripper_command': action.ParallelGripperCommand}[kind]
        self.goals: list = []
        self.refuses, self.ends = False, 'reached'
        self._server = ActionServer(
            self, self._type, ACTION, self._execute, goal_callback=self._on_goal)

    def _on_goal(self, _) -> GoalResponse:
        return GoalResponse.REJECT if self.refuses else GoalResponse.ACCEPT

    def _execute(self, handle):
        self.goals.append(handle.request.command)
        result = self._type.Result()
        result.reached_goal = self.ends == 'reached'
        result.stalled = self.ends == 'stalled'
        if self.ends == 'reached':
            handle.succeed()
        else:
            handle.abort()
        return result

    def close(self) -> None:
        self._server.destroy()


def started(graph, kind, **values):
    gripper = graph.add(GripperStandIn(kind))
    bench = Bench(graph, gripper_interface=kind, **{**KINDS[kind], **values})
    client = bench.node._robot._gripper._client
    wait_until(client.server_is_ready)
    bench.enable()
    return gripper, bench


@pytest.mark.parametrize('kind', KINDS)
def test_the_action_is_asked_on_a_change_only(graph, kind):
    gripper, bench = started(graph, kind)
    bench.act_until(lambda: gripper.goals, gripper=1.0)
    bench.act_for(0.3, gripper=1.0)
    bench.act_for(0.2, gripper=0.5)
    assert len(gripper.goals) == 1
    bench.act_until(lambda: len(gripper.goals) == 2, gripper=0.0)
    first, second = gripper.goals
    if kind == 'gripper_command':
        assert (first.position, first.max_effort, second.position) == (0.04, 15.0, 0.002)
    else:
        assert (list(first.name), list(first.effort)) == (['finger_joint'], [15.0])
        assert (list(first.position), list(second.position)) == ([0.04], [0.002])


@pytest.mark.parametrize('kind', KINDS)
def test_enabling_without_the_action_is_refused(graph, kind):
    bench = Bench(graph, gripper_interface=kind, **KINDS[kind])
    answer = bench.ask_to_enable()
    assert not answer.success
    assert f'expected a server of the action {ACTION}' in answer.message


def test_a_goal_that_was_rejected_is_sent_again_with_the_next_action(graph):
    gripper, bench = started(graph, 'gripper_command')
    gripper.refuses = True
    bench.act_until(lambda: bench.node._robot.problem, gripper=1.0)
    assert bench.node._robot.problem == f'{ACTION}: the goal was rejected'
    gripper.refuses = False
    bench.act_until(lambda: gripper.goals, gripper=1.0)
    wait_until(lambda: bench.node._robot.problem == '')


def test_fingers_stalled_by_what_they_hold_are_no_problem_and_an_aborted_goal_is(graph):
    gripper, bench = started(graph, 'gripper_command')
    gripper.ends = 'stalled'
    bench.act_until(lambda: gripper.goals, gripper=0.0)
    bench.act_for(0.2, gripper=0.0)
    assert bench.node._robot.problem == ''
    gripper.ends = 'aborted'
    bench.act_until(lambda: bench.node._robot.problem, gripper=1.0)
    assert bench.node._robot.problem == f'{ACTION}: aborted before its goal was reached'
    assert bench.status().state_text.startswith('moving')


def test_a_topic_gets_positions_as_the_gripper_counts_them(graph):
    bench = Bench(graph, gripper_topic='/fingers', gripper_interface='topic',
                  gripper_open_position=0.0, gripper_closed_position=0.8)
    heard = graph.collect(Float64, '/fingers')
    wait_until(lambda: graph.node.count_publishers('/fingers') == 1)
    bench.enable()
    bench.act_until(lambda: heard, gripper=1.0)
    bench.act_until(lambda: len(heard) > 1, gripper=0.0)
    assert [message.data for message in heard] == [0.0, 0.8]


def test_without_a_gripper_nothing_is_advertised(graph):
    bench = Bench(graph, gripper_interface='none')
    bench.enable()
    bench.act_until(bench.moving, gripper=1.0)
    assert graph.node.count_publishers(f'{NAME}/gripper_command') == 0


@pytest.mark.parametrize('kind', KINDS)
def test_without_control_msgs_one_line_says_what_to_install(graph, monkeypatch, kind):
    for name in ('control_msgs', 'control_msgs.action'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StartError) as error:
        graph.add(ControllerNode(parameter_overrides=overrides(
            dry_run=False, pose_source='none', workspace_enabled=False, gripper_interface=kind,
            **KINDS[kind])))
    assert str(error.value).startswith('expected the package control_msgs')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('values', 'message'), [
    ({'gripper_interface': 'gripper_command'}, 'gripper_action: expected the name of an action'),
    ({'gripper_interface': 'parallel_gripper_command', 'gripper_action': ACTION},
     'gripper_joint: expected the name of a joint')])
def test_an_action_without_its_names_is_refused(graph, values, message):
    values = {'pose_source': 'none', 'workspace_enabled': False, **values}
    with pytest.raises(ValueError, match=message):
        graph.add(ControllerNode(parameter_overrides=overrides(**values)))


def test_the_effort_is_left_to_a_parallel_gripper_where_none_is_given(graph):
    gripper, bench = started(graph, 'parallel_gripper_command', gripper_max_effort=0.0)
    bench.act_until(lambda: gripper.goals, gripper=1.0)
    assert list(gripper.goals[0].effort) == []
