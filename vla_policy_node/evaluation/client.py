"""
The demo's own ROS node: asks the other nodes to act and listens to what they publish.

It is an outside observer: no command passes through it.
"""

from collections.abc import Callable
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import SetBool
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus
from vla_msgs.srv import JudgeTask
from vla_msgs.srv import ResetScene

from vla_policy_node.bringup import CAMERA_TOPIC
from vla_policy_node.evaluation.policy_client import PolicyClient
from vla_policy_node.evaluation.policy_client import PolicyClientError as DemoError
from vla_policy_node.evaluation.recording import Recorded

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


class DemoClient(PolicyClient):
    """Blocking calls to the nodes of a demo; spin it in another thread."""

    def __init__(
        self, on_message: Callable[[Recorded], None], check: Callable[[], None], **node_options,
    ) -> None:
        """
        Subscribe to TOPICS and prepare the clients.

        on_message: called in the spinning thread with each serialised message.
        check: called at every call and while waiting; raises when going on has become pointless.
        """
        super().__init__('demo', check, **node_options)
        self._on_message = on_message
        self._reset = self.create_client(ResetScene, '/simulated_robot/reset')
        self._judge = self.create_client(JudgeTask, '/simulated_robot/judge')
        self._enable = self.create_client(SetBool, '/controller_node/enable')
        for topic, kind in TOPICS.items():
            self._listen(topic, kind)

    def _listen(self, topic: str, kind: type) -> None:
        def forward(data: bytes) -> None:
            self._on_message(Recorded(topic=topic, received_ns=time.time_ns(), data=data))
        # Best effort also hears reliable publishers and never holds one up.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(kind, topic, forward, qos, raw=True)

    def enable(self, timeout_s: float) -> None:
        """Release the controller's interlock."""
        response = self.ask(self._enable, SetBool.Request(data=True), timeout_s)
        if not response.success:
            raise DemoError(f'the controller was not enabled: {response.message}')

    def reset(self, seed: int, task: str, timeout_s: float = 10.0) -> str:
        """Set up the scene of a task; returns the instruction that states it."""
        response = self.ask(self._reset, ResetScene.Request(seed=seed, task=task), timeout_s)
        if not response.success:
            raise DemoError(f'the scene was not reset: {response.message}')
        return response.instruction

    def judge(self, timeout_s: float = 5.0) -> JudgeTask.Response:
        """Return what the simulated table says about the task in force."""
        return self.ask(self._judge, JudgeTask.Request(), timeout_s)


def message_type_name(kind: type) -> str:
    """Return 'package/msg/Type' of a message class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def decode(recorded: Recorded) -> Any:
    """Return the message behind a recorded one."""
    return deserialize_message(recorded.data, TOPICS[recorded.topic])
