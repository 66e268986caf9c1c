"""Where the controller gets the measured tool pose from: a topic or tf."""

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.time import Time

from vla_policy_node.nodes.conversions import components
from vla_policy_node.nodes.conversions import quaternion_wxyz
from vla_policy_node.nodes.conversions import time_s
from vla_policy_node.nodes.runtime import StartError
from vla_policy_node.nodes.runtime import steady_timer

_TF_PERIOD_S = 0.02

# Takes position (3,) [m], quaternion (4,) w x y z, stamp [s].
PoseSink = Callable[[tuple, tuple, float], object]


class TopicPose:
    """Forwards the poses of a topic; those in another frame than the base are refused."""

    def __init__(self, node: Node, topic: str, base_frame: str, sink: PoseSink) -> None:
        """Subscribe; best effort also hears reliable publishers."""
        self._logger = node.get_logger()
        self._base_frame = base_frame
        self._sink = sink
        node.create_subscription(
            PoseStamped, topic, self._on_pose,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))

    def _on_pose(self, message: PoseStamped) -> None:
        if message.header.frame_id != self._base_frame:
            self._logger.warning(
                f'tool pose refused: expected frame {self._base_frame!r}, found'
                f' {message.header.frame_id!r}', throttle_duration_sec=5.0)
            return
        self._sink(
            components(message.pose.position), quaternion_wxyz(message.pose.orientation),
            time_s(message.header.stamp))


class TfPose:
    """Looks the tool up in tf; the stamp of the transform is kept, so its age counts."""

    def __init__(self, node: Node, base_frame: str, tool_frame: str, sink: PoseSink) -> None:
        """
        Listen to tf.

        :raises StartError: tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise StartError(
                'parameter pose_source: tf needs the Python package tf2_ros, which comes with a'
                ' ROS installation; source ROS 2 or use pose_source topic') from error
        self._logger = node.get_logger()
        self._frames = base_frame, tool_frame
        self._sink = sink
        self._error = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        steady_timer(node, _TF_PERIOD_S, self._look_up)

    def _look_up(self) -> None:
        try:
            found = self._buffer.lookup_transform(*self._frames, Time())
        except self._error as error:
            self._logger.warning(f'tool pose from tf: {error}', throttle_duration_sec=5.0)
            return
        self._sink(
            components(found.transform.translation), quaternion_wxyz(found.transform.rotation),
            time_s(found.header.stamp))
