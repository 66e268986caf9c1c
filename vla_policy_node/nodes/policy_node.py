"""
Policy node: camera frames and an instruction in, chunks of end-effector deltas out.

Lifecycle: configure loads, warms up and tests the policy; while active it carries out goals of
~/execute_instruction and answers ~/ask; deactivate ends the goal, cleanup frees the model.
"""

from collections.abc import Callable
from functools import partial
import sys
import time
from types import SimpleNamespace

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from vla_msgs.action import ExecuteInstruction
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus
from vla_msgs.srv import Ask

from vla_policy_node.bringup import inference_threads
from vla_policy_node.nodes import diagnostics
from vla_policy_node.nodes import parameters
from vla_policy_node.nodes.chunk_message import chunk_message
from vla_policy_node.nodes.conversions import time_ns
from vla_policy_node.nodes.execute_instruction import GoalSettings
from vla_policy_node.nodes.execute_instruction import InstructionServer
from vla_policy_node.nodes.inference_worker import Failure
from vla_policy_node.nodes.inference_worker import InferenceWorker
from vla_policy_node.nodes.inference_worker import Step
from vla_policy_node.nodes.inference_worker import WorkerSettings
from vla_policy_node.nodes.lifecycle import refuse_misfit_transitions
from vla_policy_node.nodes.mailbox import Frame
from vla_policy_node.nodes.policy_parameters import PARAMETERS
from vla_policy_node.nodes.policy_report import describe_model
from vla_policy_node.nodes.policy_report import PolicyReport
from vla_policy_node.nodes.runtime import run
from vla_policy_node.nodes.runtime import StartError
from vla_policy_node.nodes.runtime import steady_timer
from vla_policy_node.policy import give_back_memory
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Policy
from vla_policy_node.policy import run_self_test
from vla_policy_node.prompts import clean_instruction

PolicyFactory = Callable[[SimpleNamespace], Policy]

_STATUS_PERIOD_S = 0.5
# A loss is reported at most this often.
_LOSS_REPORT_S = 10.0


def load_from_checkpoint(values: SimpleNamespace) -> Policy:
    """Load the checkpoint that the parameters name."""
    if not values.checkpoint:
        raise ValueError(
            "parameter checkpoint: expected a checkpoint directory, found ''; give it with"
            ' -p checkpoint:=DIRECTORY')
    import torch
    torch.set_num_threads(values.torch_num_threads or inference_threads())
    return load_policy(
        values.checkpoint, device=values.device, quantization=values.quantization,
        dtype=values.dtype, unnorm_key=values.unnorm_key or None,
        decoding=values.decoding or None, plan=values.plan != 'off',
        quantize_vision=values.quantize_vision, temperature=values.temperature,
        seed=values.seed)


class PolicyNode(LifecycleNode):
    """Thin: parameters, topics and states; the worker thread does the work."""

    def __init__(self, make_policy: PolicyFactory = load_from_checkpoint, **node_options) -> None:
        """
        Declare the parameters and offer the interfaces; no model yet.

        :param make_policy: loads a policy from the node's parameters, in the worker's thread.
        :raises ParameterError: a parameter is unknown or out of range.
        """
        super().__init__('policy_node', **node_options)
        refuse_misfit_transitions(self)
        self.values = parameters.declare(self, PARAMETERS)
        self._make_policy = make_policy
        self._worker: InferenceWorker | None = None
        self._policy: Policy | None = None
        self._subscriptions_to_cameras = []
        self._active = False
        self._report = PolicyReport()
        self._latency_ms = 0.0
        self._sequence = 0
        self._lost_reported_s = -_LOSS_REPORT_S
        self._chunks = self.create_lifecycle_publisher(
            EndEffectorDeltaChunk, '~/action_chunk', 1)
        self._statuses = self.create_publisher(PolicyStatus, '~/status', 10)
        self._goals = InstructionServer(
            self, GoalSettings(
                preempt=self.values.on_new_goal == 'preempt',
                max_duration_s=self.values.max_duration_s,
                image_wait_s=self.values.image_wait_s,
                max_decode_failures=self.values.max_decode_failures),
            follow=self._follow, rest=self._rest, is_active=lambda: self._active)
        # A group of its own: the others run while an answer is being waited for.
        self.create_service(
            Ask, '~/ask', self._on_ask, callback_group=MutuallyExclusiveCallbackGroup())
        # Triggered by the worker's thread, which cannot end itself.
        self._retreat_condition = self.create_guard_condition(self._retreat)
        steady_timer(self, _STATUS_PERIOD_S, self._publish_status)
        diagnostics.DiagnosticsPublisher(self, lambda: self._report.diagnose(self._policy))
        if self.values.autostart:
            self._autostart_timer = steady_timer(self, 0.0, self._autostart)

    # Lifecycle. rclpy swallows exceptions of transitions, so they are reported here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, warm up and test the policy; FAILURE with one line in the log otherwise."""
        self._worker = InferenceWorker(
            self._load, self, WorkerSettings(
                period_s=1.0 / self.values.rate_hz if self.values.rate_hz else 0.0,
                image_timeout_s=self.values.image_timeout_s,
                max_clock_skew_s=self.values.max_clock_skew_s),
            lambda: self.get_clock().now().nanoseconds)
        started_s = time.monotonic()
        try:
            self._policy = self._worker.start()
        except Exception as error:
            self._report.problem = ' '.join(f'{error}'.split()) or type(error).__name__
            self.get_logger().error(f'configure refused: {self._report.problem}')
        if self._policy is None:
            # Only now: the error's frames held what had been loaded.
            self._worker.stop()
            self._worker = None
            give_back_memory()
            return TransitionCallbackReturn.FAILURE
        self._report.loaded()
        for line in describe_model(self._policy):
            self.get_logger().info(line)
        self._listen_to_cameras()
        self.get_logger().info(
            f'policy ready after {time.monotonic() - started_s:.1f} s,'
            f' cameras: {", ".join(self._worker.cameras)}')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accept goals from now on."""
        self._active = True
        self._report.state = PolicyStatus.IDLE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the goal and accept none."""
        self._deactivate()
        self._report.state = PolicyStatus.INACTIVE
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the goal and free the model."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """End the goal and free the model; nothing is published afterwards."""
        self._deactivate()
        self._unload()

    def destroy_node(self) -> None:
        """Leave the ROS graph at once; rclpy leaves action and lifecycle to the collector."""
        self._goals.destroy()
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _deactivate(self) -> None:
        self._active = False
        self._goals.end(
            ExecuteInstruction.Result.NOT_ACTIVE, 'the policy node was deactivated')

    def _unload(self) -> None:
        for subscription in self._subscriptions_to_cameras:
            self.destroy_subscription(subscription)
        self._subscriptions_to_cameras = []
        if self._worker is not None:
            self._worker.stop()
        self._worker = self._policy = None
        self._report.state = PolicyStatus.UNCONFIGURED

    def _load(self) -> Policy:
        policy = self._make_policy(self.values)
        try:
            run_self_test(policy)
        except Exception:
            policy.close()
            raise
        return policy

    def _retreat(self) -> None:
        """Unload the model after it ran out of memory, as the transitions do."""
        if self._active:
            self.trigger_deactivate()
        if self._policy is not None:
            self.trigger_cleanup()
        give_back_memory()
        self.get_logger().error(f'unloaded: {self._report.problem}')
        self._publish_status()

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise StartError(self._report.problem or 'activation was refused')

    # Cameras

    def _listen_to_cameras(self) -> None:
        compressed = self.values.image_transport == 'compressed'
        qos = QoSProfile(depth=1, reliability=(
            ReliabilityPolicy.RELIABLE if self.values.image_reliability == 'reliable'
            else ReliabilityPolicy.BEST_EFFORT))
        for index, camera in enumerate(self._worker.cameras):
            base = '~/image' if index == 0 else f'~/{camera}/image'
            self._subscriptions_to_cameras.append(self.create_subscription(
                CompressedImage if compressed else Image,
                f'{base}/compressed' if compressed else base,
                partial(self._on_image, camera), qos))

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        missing = self._worker.put(camera, Frame(
            message=message, stamp_ns=time_ns(message.header.stamp),
            received_monotonic_s=time.monotonic()))
        if missing:
            self._report_loss(camera)

    def _report_loss(self, camera: str) -> None:
        now_s = time.monotonic()
        if now_s - self._lost_reported_s < _LOSS_REPORT_S:
            return
        self._lost_reported_s = now_s
        mailbox = self._worker.mailboxes[camera]
        self.get_logger().warning(
            f'camera {camera}: about {mailbox.loss.lost} frames lost so far beside'
            f' {mailbox.received} received, by the spacing of their stamps; either this machine is'
            ' too busy to take each one, or the DDS profile lacks a shared-memory segment larger'
            ' than a frame: set'
            ' FASTRTPS_DEFAULT_PROFILES_FILE (Jazzy) or FASTDDS_DEFAULT_PROFILES_FILE to'
            ' config/fastdds_profile.xml for camera and node')

    # Work, called by the goals

    def _follow(self, instruction: str) -> int:
        self._report.began()
        return self._worker.follow(instruction)

    def _rest(self) -> None:
        if self._worker is not None:
            self._worker.rest()
        if self._active and self._report.state != PolicyStatus.FAULT:
            self._report.state = PolicyStatus.IDLE

    # Called by the worker, from its thread

    def publish(self, step: Step) -> None:
        """Send a chunk."""
        now_ns = self.get_clock().now().nanoseconds
        self._sequence += 1
        self._chunks.publish(chunk_message(
            step.chunk, self._policy.action_space, sequence=self._sequence,
            observation_ns=step.frame.stamp_ns, now_ns=now_ns))
        self._latency_ms = (now_ns - step.frame.stamp_ns) * 1e-6

    def stepped(self, step: Step) -> None:
        """Account for a chunk that was sent."""
        self._report.stepped(step, self._latency_ms)
        self._publish_status()
        self._goals.stepped(
            step.generation, PolicyStatus.RUNNING, self._latency_ms, step.chunk.plan,
            step.chunk.terminate)

    def failed(self, generation: int, failure: Failure, reason: str) -> None:
        """Account for a frame that gave no chunk; the controller holds by itself."""
        problem = ' '.join(reason.split())
        self._report.failed(failure, problem)
        self.get_logger().warning(f'no action: {problem}', throttle_duration_sec=2.0)
        self._publish_status()
        self._goals.failed(generation, failure, problem)
        if failure is Failure.OUT_OF_MEMORY:
            self._retreat_condition.trigger()

    # Questions

    async def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        try:
            if not self._active:
                raise ValueError('the policy node is not active; activate it first')
            response.answer, stamp_ns = await self._ask(
                clean_instruction(request.question),
                request.max_new_tokens or self.values.max_new_tokens)
        except Exception as error:
            response.message = ' '.join(f'{error}'.split())
            return response
        response.observation_stamp.sec, response.observation_stamp.nanosec = divmod(
            stamp_ns, 1_000_000_000)
        response.success = True
        response.message = getattr(self._policy, 'answer_caution', '')
        return response

    def _ask(self, question: str, max_new_tokens: int) -> Future:
        """Return a future of rclpy for one of the worker."""
        answered = Future()

        def forward(done) -> None:
            if done.exception() is not None:
                answered.set_exception(done.exception())
            else:
                answered.set_result(done.result())
            if self.executor is not None:
                self.executor.wake()
        self._worker.ask(question, max_new_tokens).add_done_callback(forward)
        return answered

    def _publish_status(self) -> None:
        status = self._report.status(self._worker, self._goals.instruction)
        status.header.stamp = self.get_clock().now().to_msg()
        self._statuses.publish(status)


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run(PolicyNode))


if __name__ == '__main__':
    main()
