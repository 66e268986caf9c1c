"""Somebody in the graph who asks the nodes to act and keeps what they publish, with its times."""

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
import numpy as np
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from std_srvs.srv import SetBool
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus
from vla_msgs.srv import ResetScene

from vla_policy_node.evaluation.policy_client import PolicyClient
from vla_policy_node.nodes.conversions import components
from vla_policy_node.nodes.conversions import time_s

COMMANDS = '/simulated_robot/delta_twist_cmds'
CHUNKS = '/policy_node/action_chunk'
_POLL_S = 0.002
_KEPT_CHUNKS = 200
# Nothing that is waited for takes so long but on a machine that is busy with other things.
PATIENCE_S = 60.0


class WaitedInVainError(RuntimeError):
    """Something that had to happen did not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """
    A command as the robot gets it.

    :param stamp_s: by the controller's clock. received_s: here, by the system's clock.
    :param linear, angular: (3,) float64 [m/s], [rad/s].
    """

    stamp_s: float
    received_s: float
    linear: np.ndarray
    angular: np.ndarray
    gripper: None = None
    pose: None = None

    @property
    def is_zero(self) -> bool:
        """Whether nothing moves."""
        return not (self.linear.any() or self.angular.any())


class Watch(PolicyClient):
    """Keeps the commands, what the nodes say of themselves and where the tool is."""

    def __init__(self, check: Callable[[], None], **node_options: Any) -> None:
        """Listen; check raises when waiting has become pointless."""
        super().__init__('fault_watch', check, **node_options)
        self.commands: list[Seen] = []
        self.statuses: list[tuple[float, ControllerStatus]] = []
        self.controller = ControllerStatus()
        self.policy: PolicyStatus | None = None
        self.policy_heard_s: list[float] = []
        self.poses: list[tuple[float, np.ndarray]] = []
        self._diagnostics: dict[str, tuple[float, dict[str, str]]] = {}
        self.chunks: list[EndEffectorDeltaChunk] = []
        self._goal: Any = None
        self._others: dict[str, Any] = {}
        self._enable = self.create_client(SetBool, '/controller_node/enable')
        self._reset = self.create_client(ResetScene, '/simulated_robot/reset')
        for kind, topic, take in (
                (TwistStamped, COMMANDS, self._on_command),
                (ControllerStatus, '/controller_node/status', self._on_controller),
                (PolicyStatus, '/policy_node/status', self._on_policy),
                (EndEffectorDeltaChunk, CHUNKS, self.chunks.append),
                (DiagnosticArray, '/diagnostics', self._on_diagnostics)):
            self.create_subscription(kind, topic, take, 1000)
        self.create_subscription(
            PoseStamped, '/simulated_robot/tool_pose', self._on_pose,
            QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT))

    def _on_command(self, message: TwistStamped) -> None:
        self.commands.append(Seen(
            time_s(message.header.stamp), time.time(),
            np.array(components(message.twist.linear)),
            np.array(components(message.twist.angular))))

    def _on_controller(self, message: ControllerStatus) -> None:
        self.controller = message
        self.statuses.append((time.time(), message))

    def _on_policy(self, message: PolicyStatus) -> None:
        self.policy = message
        self.policy_heard_s.append(time.time())

    def _on_pose(self, message: PoseStamped) -> None:
        self.poses.append((time.time(), np.array(components(message.pose.position))))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._diagnostics[status.name] = time_s(message.header.stamp), {
                item.key: item.value for item in status.values}

    def forget(self) -> None:
        """Forget what was kept, all but the latest."""
        for kept in (self.commands, self.statuses, self.poses, self.policy_heard_s):
            del kept[:-1]
        # What moves now may come from one of these.
        del self.chunks[:-_KEPT_CHUNKS]

    # Asking

    def until(
        self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S,
    ) -> Any:
        """Return the first true value of a condition; WaitedInVainError after a while."""
        deadline_s, next_check_s = time.monotonic() + timeout_s, 0.0
        while not (value := condition()):
            now_s = time.monotonic()
            if now_s > next_check_s:
                self._check()
                next_check_s = now_s + 0.2
            if now_s > deadline_s:
                raise WaitedInVainError(
                    f'expected {what} within {timeout_s:g} s, found none; controller: '
                    f'{self.controller.state_text}, {self.controller.last_rejection}; policy: '
                    f'{self.policy.state_text if self.policy else "unheard"}')
            time.sleep(_POLL_S)
        return value

    def enable(self, value: bool = True) -> str:
        """Open or close the controller's interlock; return what stood in the way."""
        answer = self.ask(self._enable, SetBool.Request(data=value), PATIENCE_S)
        return '' if answer.success else answer.message

    def enable_at_last(self) -> None:
        """Open the interlock as soon as nothing stands in the way."""
        self.until(lambda: not self.enable(), 'an enabled controller')

    def instruct(self, instruction: str = 'go', duration_s: float = 600.0) -> None:
        """Send the policy node an instruction, which ends the one before."""
        self._goal = self.send_instruction(instruction, duration_s, PATIENCE_S)

    def deactivate(self, timeout_s: float) -> None:
        """Stop the policy from publishing; PolicyClientError when it refuses."""
        self._transition(Transition.TRANSITION_DEACTIVATE, 'deactivate', timeout_s)

    def cleanup(self, timeout_s: float) -> None:
        """Unload the policy; PolicyClientError when it refuses."""
        self._transition(Transition.TRANSITION_CLEANUP, 'clean up', timeout_s)

    def client(self, kind: type, name: str) -> Any:
        """Return a client of a service, made once."""
        if name not in self._others:
            self._others[name] = self.create_client(kind, name)
        return self._others[name]

    def reset_scene(self, seed: int = 4) -> str:
        """Put the arm back to where it starts; return the instruction of the scene."""
        request = ResetScene.Request(seed=seed)
        return self.ask(self._reset, request, PATIENCE_S).instruction

    # What is known

    @property
    def is_moving(self) -> bool:
        """Whether the latest command was fresh and not zero."""
        return bool(self.commands) and not self.commands[-1].is_zero \
            and time.time() - self.commands[-1].received_s < 0.1

    def diagnose(self, name: str) -> dict[str, str]:
        """Return what a node says in its diagnostics from now on, by its full name."""
        asked_s = time.time()
        self.until(lambda: self._diagnostics.get(name, (0.0, {}))[0] > asked_s,
                   f'diagnostics of {name}')
        return self._diagnostics[name][1]
