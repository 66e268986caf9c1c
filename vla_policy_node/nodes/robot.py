"""The robot behind the controller's commands: its topic, its gripper and its Servo node."""

from collections.abc import Callable
from types import SimpleNamespace

from rclpy.node import Node

from vla_policy_node.control import Command
from vla_policy_node.nodes.robot_gripper import make_gripper
from vla_policy_node.nodes.robot_output import intruders
from vla_policy_node.nodes.robot_output import PoseOutput
from vla_policy_node.nodes.robot_output import topic_of
from vla_policy_node.nodes.robot_output import TwistOutput
from vla_policy_node.nodes.robot_servo import MoveItServo

_OUTPUTS = {'twist': (TwistOutput, '~/delta_twist_cmds'), 'pose': (PoseOutput, '~/target_pose')}


class Robot:
    """Sends commands the way a robot's software takes them, and says when it cannot."""

    def __init__(self, node: Node, values: SimpleNamespace,
                 on_gripper_refusal: Callable[[], None]) -> None:
        """
        Advertise and join what the node's parameters name.

        :raises StartError: an interface package that they need is not installed.
        """
        self._node, self._values = node, values
        self._output = None
        if values.output_mode in _OUTPUTS:
            output, private_name = _OUTPUTS[values.output_mode]
            self._output = output(
                node, topic_of(node, private_name, values.command_topic), values.base_frame)
        self._gripper = make_gripper(node, values, on_gripper_refusal)
        self._servo = None
        if values.robot_interface == 'moveit_servo':
            self._servo = MoveItServo(
                node, values.servo_node, values.output_mode,
                period_s=1.0 / values.command_rate_hz, timeout_s=values.servo_timeout_s)
        self._topics = [
            part.topic for part in (self._output, self._gripper) if part and part.topic]

    @property
    def problem(self) -> str:
        """What the gripper could not do last, '' for nothing."""
        return '' if self._gripper is None else self._gripper.problem

    async def prepare(self) -> str:
        """Make ready for the first command; return '' or what stands in the way."""
        obstacle = '' if self._gripper is None else self._gripper.obstacle()
        if not obstacle and self._servo is not None:
            obstacle = await self._servo.prepare()
        return obstacle

    def intruder(self) -> str:
        """Return who else commands the robot, '' for nobody."""
        for topic in self._topics:
            names = intruders(self._node, topic)
            if names:
                return (f'expected no other publisher on {topic}, found {names}: stop it, or wait'
                        ' some seconds where it was killed just now')
        return ''

    def trouble(self, moving: bool) -> str:
        """Return why motion must end, '' for no reason; call at every command."""
        return '' if self._servo is None else self._servo.trouble(moving)

    def remark(self) -> str:
        """Return what is worth saying on enabling, '' for nothing."""
        deaf = [topic for topic in self._topics if not self._node.count_subscribers(topic)]
        return f'; nobody listens on {", ".join(deaf)}' if deaf else ''

    def send(self, command: Command) -> None:
        """Send a command, and tell the gripper where it changes."""
        if self._output is not None:
            self._output.send(command)
        if command.gripper is not None and self._gripper is not None:
            self._gripper.move(
                self._values.gripper_open_position if command.gripper
                else self._values.gripper_closed_position)
