"""
Controller node: chunks of end-effector deltas in, limited robot commands out.

Loads no model and never imports torch. What moves and what does not is decided by
vla_policy_node.control; here are topics, timers and the interlock service.
"""

from collections.abc import Callable
import sys
import time

from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64
from std_srvs.srv import SetBool
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.control import Command
from vla_policy_node.control import MotionController
from vla_policy_node.control import State
from vla_policy_node.nodes import diagnostics
from vla_policy_node.nodes import parameters
from vla_policy_node.nodes.controller_parameters import control_parameters
from vla_policy_node.nodes.controller_parameters import PARAMETERS
from vla_policy_node.nodes.conversions import control_chunk
from vla_policy_node.nodes.conversions import point
from vla_policy_node.nodes.conversions import quaternion_message
from vla_policy_node.nodes.conversions import time_message
from vla_policy_node.nodes.conversions import vector
from vla_policy_node.nodes.runtime import run
from vla_policy_node.nodes.runtime import steady_timer
from vla_policy_node.nodes.tool_pose import TfPose
from vla_policy_node.nodes.tool_pose import TopicPose

_STATUS_PERIOD_S = 0.1
# The ramp at the slowest permitted deceleration and the zeros after it fit into this.
_STOP_LIMIT_S = 4.0


class ControllerNode(Node):
    """Thin: feeds clocks and messages to the MotionController and publishes what it says."""

    def __init__(self, **node_options) -> None:
        """
        Declare the parameters and start the command timer; disabled until ~/enable.

        :raises ParameterError: a parameter is unknown or out of range.
        :raises ValueError: two parameters contradict each other.
        :raises StartError: pose_source is tf and tf2_ros is not installed.
        """
        super().__init__('controller_node', **node_options)
        self.values = parameters.declare(self, PARAMETERS)
        self.controller = MotionController(control_parameters(self.values))
        self._send = self._make_sender()
        self._gripper = None
        if self.values.gripper_interface == 'topic':
            self._gripper = self.create_publisher(Float64, '~/gripper_command', 1)
        self._status = ControllerStatus(dry_run=self.values.dry_run)
        self._statuses = self.create_publisher(ControllerStatus, '~/status', 10)
        self._pose_source = self._make_pose_source()
        self._chunks = self.create_subscription(
            EndEffectorDeltaChunk, '~/action_chunk', self._on_chunk, 1)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self._timer = steady_timer(self, 1.0 / self.values.command_rate_hz, self._tick)
        steady_timer(self, _STATUS_PERIOD_S, self._publish_status)
        diagnostics.DiagnosticsPublisher(self, self._diagnose)
        if self.values.dry_run:
            self.get_logger().info('dry run: commands are computed and reported, none is sent')

    def close(self) -> None:
        """Send the stop sequence: ramp to zero, zeros, then silence."""
        self.controller.stop('the controller node is shutting down')
        deadline_s = time.monotonic() + _STOP_LIMIT_S
        while not self.controller.silent and time.monotonic() < deadline_s:
            self._tick()
            time.sleep(1.0 / self.values.command_rate_hz)

    def _make_sender(self) -> Callable[[Command], None]:
        if self.values.output_mode == 'twist':
            self._output = self.create_publisher(TwistStamped, '~/delta_twist_cmds', 1)
            return self._send_twist
        if self.values.output_mode == 'pose':
            self._output = self.create_publisher(PoseStamped, '~/target_pose', 1)
            return self._send_pose
        return lambda command: None

    def _make_pose_source(self) -> object:
        base, sink = self.values.base_frame, self._on_pose
        if self.values.pose_source == 'topic':
            return TopicPose(self, base, sink)
        if self.values.pose_source == 'tf':
            return TfPose(self, base, self.values.tool_frame, sink)
        return None

    # Inputs

    def _on_chunk(self, message: EndEffectorDeltaChunk) -> None:
        publishers = self.get_publishers_info_by_topic(self._chunks.topic_name)
        chunk = control_chunk(
            message, received_mono_s=time.monotonic(), publisher_count=len(publishers),
            publisher=bytes(publishers[0].endpoint_gid).hex() if publishers else '')
        rejection = self.controller.accept(chunk, self._now_s(), time.monotonic())
        if rejection is not None:
            self.get_logger().warning(f'action rejected: {rejection}', throttle_duration_sec=2.0)
            return
        # At once, not at the next period: this is the reaction to the camera.
        self._tick()
        self._publish_status()

    def _on_pose(self, position: tuple, quaternion: tuple, stamp_s: float) -> None:
        rejection = self.controller.update_pose(position, quaternion, stamp_s)
        if rejection is not None:
            self.get_logger().warning(
                f'tool pose refused: {rejection}', throttle_duration_sec=5.0)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        self.controller.set_enabled(request.data)
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        if request.data and self.values.dry_run:
            response.message += '; dry run: nothing is sent'
        self.get_logger().info(response.message)
        self._publish_status()
        return response

    # Commands

    def _tick(self) -> None:
        before = self.controller.state
        try:
            command = self.controller.tick(self._now_s(), time.monotonic())
            if command is not None:
                self._execute(command)
        except Exception as error:
            self.get_logger().error(f'stopping: {type(error).__name__}: {error}')
            self.controller.fault(f'{type(error).__name__}: {error}')
        if self.controller.state != before:
            self._publish_status()

    def _execute(self, command: Command) -> None:
        if not self.values.dry_run:
            self._send(command)
            if command.gripper is not None and self._gripper is not None:
                self._gripper.publish(Float64(data=command.gripper))
            self._status.commands_sent += 1
        self._report(command)

    def _send_twist(self, command: Command) -> None:
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self.values.base_frame
        message.twist.linear = vector(command.linear)
        message.twist.angular = vector(command.angular)
        self._output.publish(message)

    def _send_pose(self, command: Command) -> None:
        if command.pose is None:
            return
        message = PoseStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self.values.base_frame
        message.pose.position = point(command.pose.position)
        message.pose.orientation = quaternion_message(command.pose.quaternion)
        self._output.publish(message)

    # Reports

    def _report(self, command: Command) -> None:
        """Put a command into the status that is published next."""
        status, age_ms = self._status, 1e3 * (self._now_s() - command.observation_stamp_s)
        status.sequence = command.sequence
        status.observation_stamp = time_message(round(command.observation_stamp_s * 1e9))
        status.observation_age_ms = age_ms
        if command.first_of_chunk:
            status.camera_to_command_ms = age_ms
        status.command.linear = vector(command.linear)
        status.command.angular = vector(command.angular)

    def _publish_status(self) -> None:
        status, counters = self._status, self.controller.counters
        status.header.stamp = self.get_clock().now().to_msg()
        status.header.frame_id = self.values.base_frame
        status.state = int(self.controller.state)
        status.state_text = self.controller.state_text
        if self.controller.silent:
            status.command.linear = vector((0.0, 0.0, 0.0))
            status.command.angular = vector((0.0, 0.0, 0.0))
        status.chunks_received = counters.received
        status.chunks_accepted = counters.accepted
        status.chunks_rejected = counters.rejected
        status.last_rejection = counters.last_rejection
        status.commands_clamped = counters.commands_clamped
        status.last_clamp = counters.last_clamp
        self._statuses.publish(status)

    def _diagnose(self) -> diagnostics.Report:
        level = {State.FAULT: diagnostics.ERROR, State.HOLDING: diagnostics.WARN}.get(
            self.controller.state, diagnostics.OK)
        status, counters = self._status, self.controller.counters
        return level, self.controller.state_text, {
            'dry_run': status.dry_run, 'output_mode': self.values.output_mode,
            'chunks_accepted': counters.accepted, 'chunks_rejected': counters.rejected,
            'last_rejection': counters.last_rejection, 'commands_sent': status.commands_sent,
            'commands_clamped': counters.commands_clamped, 'last_clamp': counters.last_clamp,
            'camera_to_command_ms': f'{status.camera_to_command_ms:.1f}'}

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run(ControllerNode))


if __name__ == '__main__':
    main()
