"""
Controller node: chunks of end-effector deltas in, limited robot commands out.

Loads no model and never imports torch. What moves and what does not is decided by
vla_policy_node.control; here are topics, timers and the interlock service.
"""

import gc
import sys
import time

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.control import Command
from vla_policy_node.control import LoopTiming
from vla_policy_node.control import MotionController
from vla_policy_node.control import State
from vla_policy_node.nodes import diagnostics
from vla_policy_node.nodes import parameters
from vla_policy_node.nodes.controller_parameters import control_parameters
from vla_policy_node.nodes.controller_parameters import PARAMETERS
from vla_policy_node.nodes.conversions import control_chunk
from vla_policy_node.nodes.conversions import time_message
from vla_policy_node.nodes.conversions import vector
from vla_policy_node.nodes.priority import become_realtime
from vla_policy_node.nodes.robot import Robot
from vla_policy_node.nodes.robot_interlocks import listen_for_deadman
from vla_policy_node.nodes.robot_interlocks import listen_for_stop
from vla_policy_node.nodes.robot_interlocks import offer_stop
from vla_policy_node.nodes.robot_output import publishers
from vla_policy_node.nodes.robot_output import topic_of
from vla_policy_node.nodes.robot_pose import TfPose
from vla_policy_node.nodes.robot_pose import TopicPose
from vla_policy_node.nodes.runtime import run
from vla_policy_node.nodes.runtime import steady_timer
from vla_policy_node.nodes.transport import avoid_shared_memory

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
        self.controller = MotionController(
            control_parameters(self.values), deadman=bool(self.values.deadman_topic))
        self._robot = None
        if self.values.dry_run:
            self.get_logger().info('dry run: commands are computed and reported, none is sent')
        else:
            self._robot = Robot(self, self.values, self.controller.forget_gripper)
        self._status = ControllerStatus(dry_run=self.values.dry_run)
        self._statuses = self.create_publisher(ControllerStatus, '~/status', 10)
        self._pose_source = self._make_pose_source()
        self._chunks = self.create_subscription(
            EndEffectorDeltaChunk, '~/action_chunk', self._on_chunk, 1)
        self._make_interlocks()
        period_s = 1.0 / self.values.command_rate_hz
        self._timing = LoopTiming(period_s)
        self._timer = steady_timer(self, period_s, self._on_timer)
        steady_timer(self, _STATUS_PERIOD_S, self._publish_status)
        diagnostics.DiagnosticsPublisher(self, self._diagnose)

    def close(self) -> None:
        """Send the stop sequence: ramp to zero, zeros, then silence."""
        self.controller.stop('the controller node is shutting down')
        deadline_s = time.monotonic() + _STOP_LIMIT_S
        while not self.controller.silent and time.monotonic() < deadline_s:
            self._tick()
            time.sleep(1.0 / self.values.command_rate_hz)

    def _make_pose_source(self) -> object:
        base, sink = self.values.base_frame, self._on_pose
        if self.values.pose_source == 'topic':
            topic = topic_of(self, '~/tool_pose', self.values.tool_pose_topic)
            return TopicPose(self, topic, base, sink)
        if self.values.pose_source == 'tf':
            return TfPose(self, base, self.values.tool_frame, sink)
        return None

    def _make_interlocks(self) -> None:
        # A group of its own: while enabling waits for the robot, everything else goes on.
        self._enable_calls = 0
        self.create_service(
            SetBool, '~/enable', self._on_enable, callback_group=ReentrantCallbackGroup())
        offer_stop(self, self._on_stop)
        listen_for_stop(self, self._on_stop_topic)
        if self.values.deadman_topic:
            listen_for_deadman(
                self, self.values.deadman_topic,
                lambda held: self.controller.hold_deadman(held, time.monotonic()))

    # Inputs

    def _on_chunk(self, message: EndEffectorDeltaChunk) -> None:
        sources = publishers(self, self._chunks.topic_name)
        chunk = control_chunk(
            message, received_mono_s=time.monotonic(), publisher_count=len(sources),
            publisher=', '.join(identity for _, identity in sources),
            publisher_name=', '.join(name for name, _ in sources))
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

    # Interlocks

    async def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                         ) -> SetBool.Response:
        self._enable_calls += 1
        if request.data:
            response.message = await self._enable()
        else:
            self.controller.set_enabled(False)
        response.success = not response.message
        if response.success:
            response.message = self._enabled_text() if request.data else 'disabled'
            self.get_logger().info(response.message)
        else:
            self.get_logger().warning(f'not enabled: {response.message}')
        self._publish_status()
        return response

    async def _enable(self) -> str:
        """Enable what may be enabled; return '' or what stands in the way."""
        call = self._enable_calls
        if self._robot is not None:
            obstacle = self._robot.intruder() or await self._robot.prepare()
            if obstacle:
                return obstacle
        if call != self._enable_calls:
            return 'another call or a stop came in between: enable again'
        return self.controller.set_enabled(True)

    def _enabled_text(self) -> str:
        if self._robot is None:
            return 'enabled; dry run: nothing is sent'
        return 'enabled' + self._robot.remark()

    def _on_stop(self, reason: str) -> None:
        self._enable_calls += 1
        self.controller.emergency_stop(reason)
        self.get_logger().warning(f'emergency stop: {reason}')
        self._tick()
        self._publish_status()

    def _on_stop_topic(self, pressed: bool) -> None:
        stops = self.controller.counters.emergency_stops
        self.controller.press_stop(pressed)
        if self.controller.counters.emergency_stops != stops:
            self._enable_calls += 1
            self.get_logger().warning('emergency stop: pressed')
            self._tick()
            self._publish_status()

    # Commands

    def _on_timer(self) -> None:
        self._timing.tick(time.monotonic())
        self._tick()

    def _tick(self) -> None:
        before = self.controller.state
        try:
            self._watch()
            command = self.controller.tick(self._now_s(), time.monotonic())
            if command is not None:
                self._execute(command)
        except Exception as error:
            self.get_logger().error(f'stopping: {type(error).__name__}: {error}')
            self.controller.fault(f'{type(error).__name__}: {error}')
        if self.controller.state != before:
            self._publish_status()

    def _watch(self) -> None:
        """Stop when somebody else commands the robot or the policy, or the robot is in trouble."""
        if not self.controller.enabled:
            return
        moving = self.controller.state == State.MOVING
        trouble = '' if self._robot is None else (
            self._robot.intruder() or self._robot.trouble(moving))
        if trouble:
            self.get_logger().error(f'stopping: {trouble}')
            self.controller.fault(trouble)
        elif moving and self.count_publishers(self._chunks.topic_name) > 1:
            names = [name for name, _ in publishers(self, self._chunks.topic_name)]
            self.controller.stop(f'several publishers of actions: {", ".join(names)}')

    def _execute(self, command: Command) -> None:
        if self._robot is not None:
            self._robot.send(command)
            self.controller.sent(time.monotonic())
            self._status.commands_sent += 1
        self._report(command)

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
        problem = '' if self._robot is None else self._robot.problem
        level = {State.FAULT: diagnostics.ERROR, State.HOLDING: diagnostics.WARN}.get(
            self.controller.state, diagnostics.WARN if problem else diagnostics.OK)
        status, counters = self._status, self.controller.counters
        return level, self.controller.state_text, {
            'dry_run': status.dry_run, 'output_mode': self.values.output_mode,
            'robot_problem': problem,
            'chunks_accepted': counters.accepted, 'chunks_rejected': counters.rejected,
            'last_rejection': counters.last_rejection, 'commands_sent': status.commands_sent,
            'commands_clamped': counters.commands_clamped, 'last_clamp': counters.last_clamp,
            'camera_to_command_ms': f'{status.camera_to_command_ms:.1f}',
            'period_jitter_p99_ms': f'{self._timing.p99_ms():.2f}',
            'period_jitter_worst_ms': f'{self._timing.worst_ms:.2f}',
            'watchdog_stops': counters.watchdog_stops,
            'emergency_stops': counters.emergency_stops,
            'deadman_stops': counters.deadman_stops, 'clock_rewinds': counters.clock_rewinds,
            'clock_stalls': counters.clock_stalls,
            **{f'rejected_{name}': count for name, count in counters.rejections.items()},
            **{f'clamped_{name}': count for name, count in counters.clamps.items()}}

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9


def make_node() -> ControllerNode:
    """Return the node of a process that is about to spin it, with its priority."""
    node = ControllerNode()
    if node.values.realtime_priority:
        obstacle = become_realtime(node.values.realtime_priority)
        if obstacle:
            node.get_logger().warning(obstacle)
    # Collections leave out what is there now; looking through it took 26 ms on a busy machine.
    gc.collect()
    gc.freeze()
    return node


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    avoid_shared_memory()
    sys.exit(run(make_node))


if __name__ == '__main__':
    main()
