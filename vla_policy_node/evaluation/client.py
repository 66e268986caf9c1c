"""
The demo's own ROS node: asks the other nodes to act and listens to what they publish.

It is an outside observer: no command passes through it.
"""

from collections.abc import Callable
from dataclasses import dataclass
import threading
import time
from typing import Any

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import SetBool
from vla_msgs.action import ExecuteInstruction
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus
from vla_msgs.srv import JudgeTask
from vla_msgs.srv import ResetScene

from vla_policy_node.bringup import CAMERA_TOPIC
from vla_policy_node.evaluation.recording import Recorded
from vla_policy_node.nodes.spinning import ask_between_callbacks

CHUNK_TOPIC = '/policy_node/action_chunk'
POLICY_STATUS_TOPIC = '/policy_node/status'
CONTROLLER_STATUS_TOPIC = '/controller_node/status'
TOOL_POSE_TOPIC = '/simulated_robot/tool_pose'
DIAGNOSTICS_TOPIC = '/diagnostics'

# Everything that is listened to, and what a bag of an episode holds.
TOPICS: dict[str, type] = {
    CAMERA_TOPIC: Image,
    CHUNK_TOPIC: EndEffectorDeltaChunk,
    POLICY_STATUS_TOPIC: PolicyStatus,
    CONTROLLER_STATUS_TOPIC: ControllerStatus,
    '/simulated_robot/delta_twist_cmds': TwistStamped,
    '/simulated_robot/gripper_command': Float64,
    TOOL_POSE_TOPIC: PoseStamped,
    '/joint_states': JointState,
    DIAGNOSTICS_TOPIC: DiagnosticArray,
}

# How often a wait looks whether a process has died.
_POLL_S = 0.05

_ENDINGS = {
    value: name.lower() for name, value in (
        (name, getattr(ExecuteInstruction.Result, name)) for name in (
            'UNKNOWN', 'NOT_ACTIVE', 'INVALID_INSTRUCTION', 'NO_FRESH_IMAGE', 'DECODE_FAILED',
            'TIMEOUT', 'CANCELED', 'PREEMPTED'))}


class DemoError(RuntimeError):
    """A node did not do what the demo asked; the message says what and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalEnd:
    """How an instruction ended: name of the error code ('done' for none), text, chunks."""

    ending: str
    message: str
    steps: int


class DemoClient(Node):
    """Blocking calls to the nodes of a demo; spin it in another thread."""

    def __init__(
        self, on_message: Callable[[Recorded], None], check: Callable[[], None], **node_options,
    ) -> None:
        """
        Subscribe to TOPICS and prepare the clients.

        on_message: called in the spinning thread with each serialised message.
        check: called at every call and while waiting; raises when going on has become pointless.
        """
        super().__init__('demo', **node_options)
        self._on_message = on_message
        self._check = check
        self._reset = self.create_client(ResetScene, '/simulated_robot/reset')
        self._judge = self.create_client(JudgeTask, '/simulated_robot/judge')
        self._enable = self.create_client(SetBool, '/controller_node/enable')
        self._change_state = self.create_client(ChangeState, '/policy_node/change_state')
        self._execute = ActionClient(self, ExecuteInstruction, '/policy_node/execute_instruction')
        for topic, kind in TOPICS.items():
            self._listen(topic, kind)

    def _listen(self, topic: str, kind: type) -> None:
        def forward(data: bytes) -> None:
            self._on_message(Recorded(topic=topic, received_ns=time.time_ns(), data=data))
        # Best effort also hears reliable publishers and never holds one up.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(kind, topic, forward, qos, raw=True)

    def destroy_node(self) -> None:
        """Leave the ROS graph at once; rclpy would leave the action to a collector."""
        self._execute.destroy()
        super().destroy_node()

    def configure(self, timeout_s: float) -> None:
        """Load the policy; raises DemoError when the transition is refused."""
        self._transition(Transition.TRANSITION_CONFIGURE, 'configure', timeout_s)

    def activate(self, timeout_s: float) -> None:
        """Let the policy publish; raises DemoError when the transition is refused."""
        self._transition(Transition.TRANSITION_ACTIVATE, 'activate', timeout_s)

    def _transition(self, number: int, name: str, timeout_s: float) -> None:
        request = ChangeState.Request(transition=Transition(id=number))
        response = self._call(self._change_state, request, timeout_s)
        if not response.success:
            raise DemoError(f'the policy node refused to {name}; its log says why')

    def enable(self, timeout_s: float) -> None:
        """Release the controller's interlock."""
        response = self._call(self._enable, SetBool.Request(data=True), timeout_s)
        if not response.success:
            raise DemoError(f'the controller was not enabled: {response.message}')

    def reset(self, seed: int, task: str, timeout_s: float = 10.0) -> str:
        """Set up the scene of a task; returns the instruction that states it."""
        response = self._call(self._reset, ResetScene.Request(seed=seed, task=task), timeout_s)
        if not response.success:
            raise DemoError(f'the scene was not reset: {response.message}')
        return response.instruction

    def judge(self, timeout_s: float = 5.0) -> JudgeTask.Response:
        """Return what the simulated table says about the task in force."""
        return self._call(self._judge, JudgeTask.Request(), timeout_s)

    def send_instruction(self, instruction: str, duration_s: float, timeout_s: float) -> Any:
        """Start an instruction; returns the accepted goal handle, raises DemoError if refused."""
        if not self._execute.wait_for_server(timeout_s):
            raise DemoError('the policy node offers no execute_instruction action')
        seconds = int(duration_s)
        goal = ExecuteInstruction.Goal(
            instruction=instruction,
            max_duration=Duration(sec=seconds, nanosec=int((duration_s - seconds) * 1e9)))
        handle = self._wait(
            self._ask(lambda: self._execute.send_goal_async(goal)), timeout_s, 'goal')
        if not handle.accepted:
            raise DemoError(f'the policy node refused the instruction {instruction!r}')
        return handle

    def cancel(self, handle: Any, timeout_s: float = 5.0) -> None:
        """Ask for the end of an instruction; one that ended by itself is no error."""
        self._wait(self._ask(handle.cancel_goal_async), timeout_s, 'cancel')

    def ask_result(self, handle: Any) -> Future:
        """Return the future that is done when an instruction has ended."""
        return self._ask(handle.get_result_async)

    def result(self, future: Future, timeout_s: float = 5.0) -> GoalEnd:
        """Return how an instruction ended, from what `ask_result` returned."""
        response = self._wait(future, timeout_s, 'result')
        result = response.result
        ending = _ENDINGS.get(result.error_code, 'done')
        if ending == 'done' and response.status != GoalStatus.STATUS_SUCCEEDED:
            ending = 'aborted'
        return GoalEnd(ending=ending, message=result.error_msg, steps=result.steps)

    def _call(self, client: Client, request: Any, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while not client.wait_for_service(_POLL_S):
            self._check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f'expected the service {client.srv_name} within {timeout_s:.0f} s, found none')
        return self._wait(client.call_async(request), timeout_s, client.srv_name)

    def _ask(self, ask: Callable[[], Future]) -> Future:
        return ask_between_callbacks(self.executor, ask)

    def _wait(self, future: Future, timeout_s: float, what: str) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        # Also where the answer is there at once: another process may have died.
        self._check()
        deadline = time.monotonic() + timeout_s
        while not done.wait(_POLL_S):
            self._check()
            if time.monotonic() > deadline:
                raise DemoError(f'expected an answer of {what} within {timeout_s:.0f} s, got none')
        return future.result()


def message_type_name(kind: type) -> str:
    """Return 'package/msg/Type' of a message class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def decode(recorded: Recorded) -> Any:
    """Return the message behind a recorded one."""
    return deserialize_message(recorded.data, TOPICS[recorded.topic])
