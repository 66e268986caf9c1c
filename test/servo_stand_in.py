"""A node that takes commands as MoveIt Servo does, and records what it does with them."""

from collections.abc import Callable
import math
from typing import Any

from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_profile_system_default

from vla_policy_node.nodes.conversions import components
from vla_policy_node.nodes.conversions import quaternion_wxyz
from vla_policy_node.nodes.conversions import time_ns

INVALID, NO_WARNING, DECELERATES, HALTED_BY_COLLISION = -1, 0, 4, 5
TWIST, POSE = 1, 2


class ServoStandIn(Node):
    """
    Keeps Servo's contract, without a robot.

    Commands are discarded before `switch_command_type`, when they are of the other type, not
    finite, or without a frame. A command counts until its stamp is `timeout_s` old; then the
    motion is halted. Units other than speed_units are not served.

    discarded: why, one entry per message. accepted: the messages. stale_halts: speed [m/s] at
    which the latest command was when it became too old. status_code: what is reported instead of
    the truth, None for the truth. silent: no status at all. refuses: answers no to a switch.
    before_switch: called when a switch is asked for.
    """

    def __init__(self, name: str = 'servo_node', units: str = 'speed_units',
                 timeout_s: float = 0.1) -> None:
        from moveit_msgs.msg import ServoStatus
        from moveit_msgs.srv import ServoCommandType
        super().__init__(name)
        self.declare_parameter('moveit_servo.command_in_type', units)
        self.declare_parameter('moveit_servo.incoming_command_timeout', timeout_s)
        self.timeout_s = timeout_s
        self.kind: int | None = None
        self.accepted: list[Any] = []
        self.discarded: list[str] = []
        self.stale_halts: list[float] = []
        self.status_code: int | None = None
        self.silent = self.refuses = False
        self.before_switch: Callable[[], object] = lambda: None
        self._code, self._latest = NO_WARNING, None
        self._status = ServoStatus
        self.create_subscription(
            TwistStamped, '~/delta_twist_cmds', lambda m: self._on_command(m, TWIST),
            qos_profile_system_default)
        self.create_subscription(
            PoseStamped, '~/pose_target_cmds', lambda m: self._on_command(m, POSE),
            qos_profile_system_default)
        self.create_service(ServoCommandType, '~/switch_command_type', self._on_switch)
        self._statuses = self.create_publisher(
            ServoStatus, '~/status', qos_profile_system_default)
        self.create_timer(0.01, self._loop)

    def _on_switch(self, request: Any, response: Any) -> Any:
        self.before_switch()
        response.success = not self.refuses and request.command_type in (TWIST, POSE)
        if response.success:
            self.kind = request.command_type
        return response

    def _on_command(self, message: Any, kind: int) -> None:
        obstacle = self._obstacle(message, kind)
        if obstacle:
            self.discarded.append(obstacle)
            self._code = INVALID
        else:
            self.accepted.append(message)
            self._latest, self._code = message, NO_WARNING

    def _obstacle(self, message: Any, kind: int) -> str:
        if self.kind is None:
            return 'command type has not been set'
        if kind != self.kind:
            return 'another command type is set'
        if not all(map(math.isfinite, _numbers(message))):
            return 'not finite'
        return '' if message.header.frame_id else 'no frame'

    def _loop(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        if self._latest is not None and (
                now_ns - time_ns(self._latest.header.stamp) >= self.timeout_s * 1e9):
            self.stale_halts.append(_speed(self._latest))
            self._latest = None
        if not self.silent:
            code = self._code if self.status_code is None else self.status_code
            self._statuses.publish(self._status(code=code, message='stand-in'))


def _numbers(message: Any) -> list[float]:
    if isinstance(message, TwistStamped):
        return [*components(message.twist.linear), *components(message.twist.angular)]
    return [*components(message.pose.position), *quaternion_wxyz(message.pose.orientation)]


def _speed(message: Any) -> float:
    """Return how fast a command wants to move: not at all where it is a pose."""
    return float(np.linalg.norm(_numbers(message))) if isinstance(message, TwistStamped) else 0.0
