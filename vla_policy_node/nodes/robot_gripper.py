"""How the gripper is told to open and close: a number on a topic, or the goal of an action."""

from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Float64

from vla_policy_node.nodes.robot_output import topic_of
from vla_policy_node.nodes.robot_servo import import_types

ACTIONS = {'gripper_command': 'GripperCommand',
           'parallel_gripper_command': 'ParallelGripperCommand'}


class TopicGripper:
    """The wanted position as Float64."""

    problem = ''

    def __init__(self, node: Node, topic: str) -> None:
        """Advertise the topic; nothing is kept for late listeners."""
        self._publisher = node.create_publisher(Float64, topic, 1)
        self.topic = self._publisher.topic_name

    def obstacle(self) -> str:
        """Return '': a topic is always ready."""
        return ''

    def move(self, position: float) -> None:
        """Ask for a position."""
        self._publisher.publish(Float64(data=position))


class ActionGripper:
    """The wanted position as a goal of a gripper action; a newer goal replaces an older one."""

    topic = ''

    def __init__(self, node: Node, kind: str, action: str, *, joint: str, max_effort: float,
                 on_refusal: Callable[[], None]) -> None:
        """
        Join the action.

        :param kind: a key of ACTIONS.
        :param joint: the joint that parallel_gripper_command names.
        :param max_effort: greatest effort [N]; 0 leaves it to the gripper where it may.
        :param on_refusal: called when a goal did not reach the gripper.
        :raises StartError: control_msgs is not installed.
        """
        [self._type] = import_types('control_msgs', f'action.{ACTIONS[kind]}')
        self._client = ActionClient(node, self._type, action)
        self._action, self._kind, self._logger = action, kind, node.get_logger()
        self._joint, self._max_effort = joint, max_effort
        self._on_refusal = on_refusal
        self.problem = ''

    def obstacle(self) -> str:
        """Return why the gripper cannot be used, '' when it can."""
        if self._client.server_is_ready():
            return ''
        return (f'expected a server of the action {self._action} ({ACTIONS[self._kind]}), found'
                ' none: start the gripper, or set gripper_interface to none')

    def move(self, position: float) -> None:
        """Ask for a position without waiting for it."""
        if not self._client.server_is_ready():
            self._refused(f'{self._action}: nobody serves it')
            return
        self._client.send_goal_async(self._goal(position)).add_done_callback(self._on_answer)

    def _goal(self, position: float) -> Any:
        goal = self._type.Goal()
        if self._kind == 'gripper_command':
            goal.command.position = position
            goal.command.max_effort = self._max_effort
        else:
            goal.command.name = [self._joint]
            goal.command.position = [position]
            goal.command.effort = [self._max_effort] if self._max_effort else []
        return goal

    def _on_answer(self, future: Future) -> None:
        if future.exception() is not None or not future.result().accepted:
            self._refused(f'{self._action}: the goal was rejected')
            return
        self.problem = ''
        future.result().get_result_async().add_done_callback(self._on_result)

    def _on_result(self, future: Future) -> None:
        if future.exception() is not None:
            self._report(f'{self._action}: {future.exception()}')
        # Fingers stalled by what they hold are the purpose of closing them.
        elif (future.result().status == GoalStatus.STATUS_ABORTED
              and not future.result().result.stalled):
            self._report(f'{self._action}: aborted before its goal was reached')

    def _refused(self, problem: str) -> None:
        self._report(problem)
        self._on_refusal()

    def _report(self, problem: str) -> None:
        self.problem = problem
        self._logger.warning(f'gripper: {problem}', throttle_duration_sec=2.0)


def make_gripper(node: Node, values: Any, on_refusal: Callable[[], None]) -> Any:
    """Return the gripper that the node's parameters describe, None for none."""
    if values.gripper_interface == 'none':
        return None
    if values.gripper_interface == 'topic':
        return TopicGripper(node, topic_of(node, '~/gripper_command', values.gripper_topic))
    return ActionGripper(
        node, values.gripper_interface, values.gripper_action, joint=values.gripper_joint,
        max_effort=values.gripper_max_effort, on_refusal=on_refusal)
