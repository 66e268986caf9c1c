"""The motion controller: chunks and clocks in, limited commands out (rules of motion 1 to 5).

It knows nothing of ROS and reads no clock: both times are passed in. The ROS time judges stamps;
the monotonic time judges receipt, paces the steps and runs the watchdogs, so a jump of the ROS
clock can stop motion but never make or prolong it.

What happens when a chunk ends: its last velocity is held for at most `overrun_s`, so that a chunk
arriving a little late continues smoothly, then the command ramps to zero. `command_timeout_s`
ends motion in any case, counted from the observation stamp and from the receipt of the chunk.
"""

import numpy as np

from vla_policy_node.control.clock_watch import ClockWatch
from vla_policy_node.control.execution import Due
from vla_policy_node.control.execution import Execution
from vla_policy_node.control.gate import ChunkGate
from vla_policy_node.control.gripper import GripperTrigger
from vla_policy_node.control.interlocks import Interlocks
from vla_policy_node.control.limits import delta_to_twist
from vla_policy_node.control.parameters import ControlParameters
from vla_policy_node.control.pose import PoseTarget
from vla_policy_node.control.pose import PoseTracker
from vla_policy_node.control.types import Chunk
from vla_policy_node.control.types import Command
from vla_policy_node.control.types import Counters
from vla_policy_node.control.types import Pose
from vla_policy_node.control.types import Reason
from vla_policy_node.control.types import Rejection
from vla_policy_node.control.types import State
from vla_policy_node.control.types import STATE_TEXT
from vla_policy_node.control.velocity import LimitedTwist

# A late tick is granted this many command periods of acceleration and of look-ahead.
LATE_TICK_PERIODS = 2.0
# What it may take from a tick to its command's departure; anything more is late.
_SENDING_S = 0.001


class MotionController:
    """Executes accepted chunks within the limits; sends zeros, then nothing, without them."""

    def __init__(self, parameters: ControlParameters, *, deadman: bool = False) -> None:
        """Start disabled and at rest; with a deadman switch nothing moves while it is let go."""
        self._parameters = parameters
        self._gate = ChunkGate(parameters)
        self._gripper = GripperTrigger(
            open_above=parameters.gripper_open_above, close_below=parameters.gripper_close_below)
        self._late_s = LATE_TICK_PERIODS * parameters.command_period_s
        self._interlocks = Interlocks(
            deadman_timeout_s=parameters.deadman_timeout_s if deadman else None)
        self._clock = ClockWatch(
            max_skew_s=parameters.max_clock_skew_s, timeout_s=parameters.clock_timeout_s)
        self._execution = Execution(parameters)
        self._twist = LimitedTwist(parameters, hold_s=self._late_s)
        self._tracker = PoseTracker(parameters)
        self._target = PoseTarget(parameters)
        self._last_chunk: Chunk | None = None
        self._chunk_is_new = False
        self._sending = False
        self._zero_since_s: float | None = None
        self._tick_s: float | None = None
        self._sent_late_s = 0.0
        self.state = State.DISABLED
        self.stop_reason = ''
        self.counters = Counters()

    @property
    def enabled(self) -> bool:
        """Whether accepted chunks are executed."""
        return self._interlocks.enabled

    @property
    def silent(self) -> bool:
        """Whether the last tick had nothing to send: after a stop, whether it is complete."""
        return not self._sending

    @property
    def state_text(self) -> str:
        """The state in words, with the reason of the last stop where there is one."""
        reason = self._interlocks.fault or self.stop_reason
        return f'{STATE_TEXT[self.state]} ({reason})' if reason else STATE_TEXT[self.state]

    # Interlocks

    def set_enabled(self, enabled: bool) -> str:
        """Open or close the interlock; return '' or, for one that stays closed, why.

        Enabling, also when already enabled, forgets the publisher, the order and the gripper, and
        ends a fault or an emergency stop; chunks observed before it are refused. Disabling stops.
        """
        if not enabled:
            self._interlocks.disable()
            self.stop('disabled')
            return ''
        if self._clock.stands_still:
            return ('the ROS clock stands still: with use_sim_time, start or resume whatever'
                    ' publishes /clock and enable again')
        obstacle = self._interlocks.enable()
        if obstacle:
            return obstacle
        self._drop('')
        self._gate.rearm()
        self._gate.refuse_before(self._clock.ros_s)
        self._gripper.forget()
        self.state = State.STOPPING if self._sending else State.WAITING
        return ''

    def stop(self, reason: str) -> None:
        """Drop the chunks and ramp to zero; zeros follow, then silence.

        Motion resumes only with a chunk observed after this, and only when enabled.
        """
        self._drop(reason)
        self._gate.refuse_before(self._clock.ros_s)
        self.state = self._idle_state()

    def fault(self, reason: str) -> None:
        """Stop and refuse everything until enabled again."""
        self._interlocks.latch(reason)
        self.stop(reason)

    def emergency_stop(self, reason: str) -> None:
        """Stop and stay stopped until enabled again, whatever else happens."""
        self.counters.emergency_stops += 1
        self.fault(f'emergency stop: {reason}')

    def press_stop(self, pressed: bool) -> None:
        """Take the state of the emergency stop; released, it still takes enabling to move."""
        if pressed and not self._interlocks.stop_pressed:
            self.emergency_stop('pressed')
        self._interlocks.stop_pressed = pressed

    def hold_deadman(self, held: bool, now_mono_s: float) -> None:
        """Take a sign of the deadman switch at a monotonic time [s]."""
        self._interlocks.hold_deadman(held, now_mono_s)

    def forget_gripper(self) -> None:
        """Send the next clear wish for the gripper whatever was sent before."""
        self._gripper.forget()

    # Inputs

    def update_pose(self, position, quaternion, stamp_s: float) -> Rejection | None:
        """Take the measured tool pose in the base frame at a ROS time.

        position: (3,) [m]; quaternion: (4,) unit norm, order w x y z.
        Returns why it was not taken, None when it was. Rejected poses are counted by reason.
        """
        rejection = self._tracker.measure(position, quaternion, stamp_s)
        if rejection is not None:
            self.counters.rejections[f'pose_{rejection.reason.value}'] += 1
            self.counters.last_rejection = str(rejection)
        return rejection

    def accept(self, chunk: Chunk, now_ros_s: float, now_mono_s: float) -> Rejection | None:
        """Take a chunk to be executed from now on, or return why not. Never raises.

        now_ros_s, now_mono_s: the same moment on the ROS and the monotonic clock [s].
        """
        self._read_clock(now_ros_s, now_mono_s)
        self.counters.received += 1
        rejection = (self._gate.check(chunk, now_ros_s, now_mono_s)
                     or self._check_interlocks(now_mono_s))
        if rejection is not None:
            self.counters.count_rejection(rejection)
            if rejection.reason is Reason.SECOND_PUBLISHER and self._execution.running:
                self.stop(str(rejection))
            return rejection
        self._gate.commit(chunk)
        self.counters.accepted += 1
        self._execution.take(chunk, now_mono_s)
        self._last_chunk, self._chunk_is_new = chunk, True
        self.stop_reason = ''
        return None

    def _check_interlocks(self, now_mono_s: float) -> Rejection | None:
        if not self.enabled:
            return Rejection(
                reason=Reason.NOT_ENABLED,
                message='expected an enabled controller, found it disabled: call ~/enable')
        if self._interlocks.deadman_released(now_mono_s):
            return Rejection(
                reason=Reason.DEADMAN_RELEASED,
                message='expected the deadman switch held, found it released: hold it')
        if self._clock.stands_still:
            return Rejection(
                reason=Reason.CLOCK_STOPPED,
                message='expected a ROS clock that advances, found it standing still at '
                        f'{self._clock.ros_s:.3f} s')
        return None

    # Commands

    def tick(self, now_ros_s: float, now_mono_s: float) -> Command | None:
        """Return what to send now, None for silence. Call every `command_period_s`."""
        budget_s = self._advance(now_ros_s, now_mono_s)
        if self._may_go_on(now_ros_s, now_mono_s):
            command = self._follow(budget_s, now_ros_s, now_mono_s)
        else:
            command = self._slow_down(budget_s, now_ros_s, now_mono_s)
        if command is not None:
            self.state = command.state
            self.counters.count_command(command)
        return command

    def sent(self, now_mono_s: float) -> None:
        """
        Note that the command of the latest tick has gone out by now.

        Where that was late, on a busy machine, the next one differs from it by no more than the
        acceleration allows in the time that is left between the two.
        """
        self._sent_late_s = max(0.0, now_mono_s - self._tick_s - _SENDING_S)

    def _advance(self, now_ros_s: float, now_mono_s: float) -> float:
        """Account for the time since the last tick; return the time to accelerate in [s]."""
        self._read_clock(now_ros_s, now_mono_s)
        dt_s = self._parameters.command_period_s
        if self._tick_s is not None:
            dt_s = max(0.0, now_mono_s - self._tick_s)
        self._tick_s = now_mono_s
        sent_late_s, self._sent_late_s = self._sent_late_s, 0.0
        self._tracker.advance(self._twist.linear, dt_s, now_ros_s)
        if dt_s <= self._parameters.command_timeout_s:
            return max(0.0, min(dt_s - sent_late_s, self._late_s))
        # After such a gap whoever executes the commands has stopped: do not go on from the
        # speed of before.
        self._twist.brake(dt_s)
        return 0.0

    def _read_clock(self, now_ros_s: float, now_mono_s: float) -> None:
        back_s = self._clock.read(now_ros_s, now_mono_s)
        if back_s:
            self.counters.clock_rewinds += 1
            self._drop(f'the ROS clock was set back by {back_s:.3f} s')
            self._gate.forget_time()
            self._tracker.forget()

    def _may_go_on(self, now_ros_s: float, now_mono_s: float) -> bool:
        """Tell whether there is a chunk to follow; drop the one that must not be any more."""
        if not self._execution.running:
            return False
        if self._execution.too_old(now_ros_s, now_mono_s):
            self.counters.watchdog_stops += 1
            self._drop(f'no fresh action for {self._parameters.command_timeout_s:g} s')
        elif self._interlocks.deadman_released(now_mono_s):
            self.counters.deadman_stops += 1
            self.stop('the deadman switch was released')
        elif self._clock.stands_still:
            self.counters.clock_stalls += 1
            self.stop('the ROS clock stands still')
        elif end := self._execution.end(now_mono_s):
            self._drop(end)
        return self._execution.running

    def _follow(self, budget_s: float, now_ros_s: float, now_mono_s: float) -> Command:
        limits = self._parameters
        pose = self._tracker.now(now_ros_s)
        self._start_sending(pose)
        if pose is None and (limits.workspace_enabled or limits.pose_output):
            self._twist.brake(budget_s)
            return self._command(State.HOLDING, ('no_pose',), None, budget_s, pose)
        due = self._execution.due(now_ros_s, now_mono_s)
        linear, angular, clamps = self._wanted(due)
        clamps += self._twist.follow(linear, angular, budget_s, self._positions(pose))
        gripper = None if due.gripper is None else self._gripper.update(due.gripper)
        return self._command(State.MOVING, clamps, gripper, budget_s, pose)

    def _wanted(self, due: Due) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Return the mean of the limited twists of the deltas: as limited as each of them."""
        limits, clamps = self._parameters, {}
        linear, angular = np.zeros(3), np.zeros(3)
        for weight, delta in due.parts:
            step_linear, step_angular, cuts = delta_to_twist(
                delta, due.period_s,
                max_delta_m=limits.max_delta_m, max_delta_rad=limits.max_delta_rad,
                max_linear_mps=limits.max_linear_mps, max_angular_radps=limits.max_angular_radps)
            linear = linear + weight * step_linear
            angular = angular + weight * step_angular
            clamps.update(dict.fromkeys(cuts))
        return linear, angular, tuple(clamps)

    def _positions(self, pose: Pose | None) -> list[np.ndarray]:
        """Return the positions that must stay in the workspace: tool and pose target."""
        if not self._parameters.workspace_enabled or pose is None:
            return []
        if self._target.pose is None:
            return [pose.position]
        return [pose.position, self._target.pose.position]

    def _slow_down(self, budget_s: float, now_ros_s: float, now_mono_s: float) -> Command | None:
        if not self._sending:
            self.state = self._idle_state()
            return None
        self._twist.brake(budget_s)
        if not self._twist.at_rest:
            self._zero_since_s = None
        elif self._zero_since_s is None:
            self._zero_since_s = now_mono_s
        elif now_mono_s - self._zero_since_s > self._parameters.zero_hold_s:
            self._sending = False
            self.state = self._idle_state()
            return None
        return self._command(self._idle_state(), (), None, budget_s, self._tracker.now(now_ros_s))

    def _start_sending(self, pose: Pose | None) -> None:
        self._zero_since_s = None
        starting = not self._sending or self._target.pose is None
        if self._parameters.pose_output and pose is not None and starting:
            self._target.anchor(pose)
        self._sending = True

    def _command(self, state: State, clamps: tuple[str, ...], gripper: float | None,
                 budget_s: float, pose: Pose | None) -> Command:
        if self._target.pose is not None and pose is not None:
            self._target.move(self._twist.linear, self._twist.angular, budget_s, pose)
        first = self._chunk_is_new and self._execution.running
        self._chunk_is_new = False
        return Command(
            linear=self._twist.linear.copy(), angular=self._twist.angular.copy(),
            gripper=gripper, pose=self._target.pose, state=state, clamps=clamps,
            sequence=self._last_chunk.sequence,
            observation_stamp_s=self._last_chunk.observation_stamp_s, first_of_chunk=first)

    def _drop(self, reason: str) -> None:
        self._execution.drop()
        self.stop_reason = reason

    def _idle_state(self) -> State:
        if self._interlocks.fault:
            return State.FAULT
        if self._sending:
            return State.STOPPING
        return State.WAITING if self.enabled else State.DISABLED
