"""
MoveIt Servo behind the commands: its handshake before the first one, its status while moving.

Speaks to the Servo of Jazzy and later. Servo discards commands until it was told their type, and
says what it does with them only in its status.
"""

import importlib
import math
import time
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Future

from vla_policy_node.nodes.runtime import StartError
from vla_policy_node.nodes.runtime import steady_timer

# Constants of moveit_msgs/srv/ServoCommandType.
COMMAND_TYPES = {'twist': 1, 'pose': 2}
# Codes of moveit_msgs/msg/ServoStatus at which Servo does not move.
HALTED = {-1: 'invalid command', 2: 'halted before a singularity', 5: 'halted before a collision',
          6: 'halted at a joint limit'}
# Servo takes a command for stale after its timeout: so many must fit into it.
COMMANDS_PER_TIMEOUT = 3

_ANSWER_S = 2.0
_PARAMETERS = ('moveit_servo.command_in_type', 'moveit_servo.incoming_command_timeout')


def import_types(package: str, *names: str) -> list[Any]:
    """
    Return types of an interface package that only ROS installations have, as 'srv.Name'.

    :raises StartError: the package is not there.
    """
    try:
        modules = [importlib.import_module(f'{package}.{name.split(".")[0]}') for name in names]
    except ImportError as error:
        raise StartError(
            f'expected the package {package}, which comes with a ROS installation, found none:'
            f' install ros-<distribution>-{package.replace("_", "-")} and source ROS 2') from error
    return [getattr(module, name.split('.')[1])
            for module, name in zip(modules, names, strict=True)]


class ServoWatch:
    """What MoveIt Servo's status says about commands that are being sent. Knows no clock."""

    def __init__(self, timeout_s: float) -> None:
        """Give Servo so long [s] to get over a halt, and to say anything at all."""
        self._timeout_s = timeout_s
        self._code, self._text = 0, ''
        self._heard_s = -math.inf
        self._since_s: float | None = None

    def hear(self, code: int, text: str, now_s: float) -> None:
        """Take a status at a monotonic time [s]."""
        self._code, self._text, self._heard_s = code, text, now_s

    def silent(self, now_s: float) -> bool:
        """Tell whether no status has come for too long."""
        return now_s - self._heard_s > self._timeout_s

    def trouble(self, moving: bool, now_s: float) -> str:
        """Return why motion must end, '' for no reason; call at every command."""
        if moving and self.silent(now_s):
            return f'MoveIt Servo has sent no status for {self._timeout_s:g} s'
        # While nothing is asked of it, Servo repeats its last status, good or bad.
        if not moving or self._code not in HALTED:
            self._since_s = None
            return ''
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s <= self._timeout_s:
            return ''
        return f'MoveIt Servo: {HALTED[self._code]} for {self._timeout_s:g} s ({self._text[:200]})'


class MoveItServo:
    """The Servo node that listens to the commands of this one."""

    def __init__(self, node: Node, servo: str, output_mode: str, *, period_s: float,
                 timeout_s: float) -> None:
        """
        Join a Servo node by its name.

        :param output_mode: a key of COMMAND_TYPES.
        :param period_s: time between two commands [s].
        :param timeout_s: longest halt, and longest silence, while commands are sent [s].
        :raises StartError: moveit_msgs is not installed.
        """
        command_type, status = import_types(
            'moveit_msgs', 'srv.ServoCommandType', 'msg.ServoStatus')
        self._node, self._servo = node, servo.rstrip('/')
        self._output_mode, self._period_s = output_mode, period_s
        self._watch = ServoWatch(timeout_s)
        self._request = command_type.Request
        self._switch = node.create_client(command_type, f'{self._servo}/switch_command_type')
        self._parameters = node.create_client(GetParameters, f'{self._servo}/get_parameters')
        node.create_subscription(
            status, f'{self._servo}/status', self._on_status,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))

    def _on_status(self, message: Any) -> None:
        self._watch.hear(message.code, message.message, time.monotonic())

    def trouble(self, moving: bool) -> str:
        """Return why motion must end, '' for no reason; call at every command."""
        return self._watch.trouble(moving, time.monotonic())

    async def prepare(self) -> str:
        """Make Servo ready for the commands; return '' or why it is not."""
        if not self._switch.service_is_ready():
            return f'expected MoveIt Servo as {self._servo}, found nobody: start it'
        obstacle = await self._check_parameters()
        if obstacle:
            return obstacle
        request = self._request()
        request.command_type = COMMAND_TYPES[self._output_mode]
        answer = await answer_of(self._node, self._switch.call_async(request))
        if answer is None or not answer.success:
            found = 'no answer' if answer is None else 'a refusal'
            return (f'expected {self._servo} to switch to {self._output_mode} commands, found'
                    f' {found}: see its log')
        if self._watch.silent(time.monotonic()):
            return (f'expected a status of {self._servo}, found none: it waits for the state of'
                    ' the robot, or is paused')
        return ''

    async def _check_parameters(self) -> str:
        request = GetParameters.Request(names=list(_PARAMETERS))
        answer = await answer_of(self._node, self._parameters.call_async(request))
        if answer is None or len(answer.values) != len(_PARAMETERS):
            return f'expected {self._servo} to tell its parameters, found no answer: see its log'
        units, timeout = answer.values
        if units.string_value != 'speed_units':
            return (f"expected {_PARAMETERS[0]} 'speed_units' in {self._servo}, found"
                    f' {units.string_value!r}: commands are in m/s and rad/s; change it there')
        longest_s = COMMANDS_PER_TIMEOUT * self._period_s
        if timeout.type == ParameterType.PARAMETER_DOUBLE and timeout.double_value < longest_s:
            return (f'expected {_PARAMETERS[1]} of at least {longest_s:g} s in {self._servo},'
                    f' found {timeout.double_value:g} s: raise it, or command_rate_hz')
        return ''


async def answer_of(node: Node, future: Future, timeout_s: float = _ANSWER_S) -> Any:
    """Return the result of a future, None when it takes too long or fails."""
    done = Future()
    timer = steady_timer(node, timeout_s, lambda: done.set_result(None))
    future.add_done_callback(lambda _: done.set_result(None))
    await done
    node.destroy_timer(timer)
    if not future.done() or future.exception() is not None:
        return None
    return future.result()
