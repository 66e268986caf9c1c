"""The motion controller: chunks and clocks in, limited commands out (rules of motion 1 to 5).

It knows nothing of ROS and reads no clock: both times are passed in. The ROS time judges stamps;
the monotonic time judges receipt, paces the steps and runs the watchdog, so a jump of the ROS
clock can stop motion but never make or prolong it.

What happens when a chunk ends: its last velocity is held for at most `overrun_s`, so that a chunk
arriving a little late continues smoothly, then the command ramps to zero. `command_timeout_s`
ends motion in any case, counted from the observation stamp and from the receipt of the chunk.
"""

from dataclasses import dataclass
import math

import numpy as np

from vla_policy_node.control.gate import ChunkGate
from vla_policy_node.control.gripper import GripperTrigger
from vla_policy_node.control.limits import delta_to_twist
from vla_policy_node.control.limits import ramp
from vla_policy_node.control.limits import Workspace
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

# A late tick is granted this many command periods of acceleration and of look-ahead.
LATE_TICK_PERIODS = 2.0


@dataclass(slots=True)
class _Run:
    """A chunk being executed. step: the last step whose gripper wish was looked at."""

    chunk: Chunk
    start_s: float
    received_s: float
    step: int = -1
    first: bool = True


class MotionController:
    """Executes accepted chunks within the limits; sends zeros, then nothing, without them."""

    def __init__(self, parameters: ControlParameters) -> None:
        """Start disabled and at rest."""
        self._parameters = parameters
        self._gate = ChunkGate(parameters)
        self._gripper = GripperTrigger(
            open_above=parameters.gripper_open_above, close_below=parameters.gripper_close_below)
        self._late_s = LATE_TICK_PERIODS * parameters.command_period_s
        self._workspace = Workspace(
            parameters.workspace_min_m, parameters.workspace_max_m,
            acceleration=parameters.max_linear_mps2, hold_s=self._late_s)
        self._tracker = PoseTracker(parameters)
        self._target = PoseTarget(parameters)
        self._linear = np.zeros(3)
        self._angular = np.zeros(3)
        self._run: _Run | None = None
        self._last_chunk: Chunk | None = None
        self._enabled = False
        self._sending = False
        self._zero_since_s: float | None = None
        self._ros_s = -math.inf
        self._tick_s: float | None = None
        self.state = State.DISABLED
        self.stop_reason = ''
        self.counters = Counters()

    @property
    def enabled(self) -> bool:
        """Whether accepted chunks are executed."""
        return self._enabled

    @property
    def silent(self) -> bool:
        """Whether the last tick had nothing to send: after a stop, whether it is complete."""
        return not self._sending

    @property
    def state_text(self) -> str:
        """The state in words, with the reason of the last stop where there is one."""
        text = STATE_TEXT[self.state]
        return f'{text} ({self.stop_reason})' if self.stop_reason else text

    def set_enabled(self, enabled: bool) -> None:
        """Open or close the interlock.

        Enabling, also when already enabled, forgets the publisher, the order and the gripper, and
        ends a fault; chunks observed before it are refused. Disabling stops.
        """
        if not enabled:
            self._enabled = False
            self.stop('disabled')
            return
        self._drop_run('')
        self._gate.rearm()
        self._gate.refuse_before(self._ros_s)
        self._gripper.forget()
        self._enabled = True
        self.state = State.STOPPING if self._sending else State.WAITING

    def stop(self, reason: str) -> None:
        """Drop the chunk and ramp to zero; zeros follow, then silence.

        Motion resumes only with a chunk observed after this, and only when enabled.
        """
        self._drop_run(reason)
        self._gate.refuse_before(self._ros_s)
        self.state = self._idle_state()

    def fault(self, reason: str) -> None:
        """Stop and refuse everything until enabled again."""
        self._enabled = False
        self.stop(reason)
        self.state = State.FAULT

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
        """Take a chunk in place of the running one, or return why not. Never raises.

        now_ros_s, now_mono_s: the same moment on the ROS and the monotonic clock [s].
        """
        self._watch_ros_clock(now_ros_s)
        self.counters.received += 1
        rejection = self._gate.check(chunk, now_ros_s, now_mono_s)
        if rejection is None and not self._enabled:
            rejection = Rejection(
                reason=Reason.NOT_ENABLED,
                message='expected an enabled controller, found it disabled: call ~/enable')
        if rejection is not None:
            self.counters.count_rejection(rejection)
            return rejection
        self._gate.commit(chunk)
        self.counters.accepted += 1
        received_s = now_mono_s
        if chunk.received_mono_s is not None:
            received_s = min(now_mono_s, chunk.received_mono_s)
        self._run = _Run(chunk=chunk, start_s=now_mono_s, received_s=received_s)
        self._last_chunk = chunk
        self.stop_reason = ''
        return None

    def tick(self, now_ros_s: float, now_mono_s: float) -> Command | None:
        """Return what to send now, None for silence. Call every `command_period_s`."""
        budget_s = self._advance(now_ros_s, now_mono_s)
        step = self._current_step(now_ros_s, now_mono_s)
        if step is None:
            command = self._slow_down(budget_s, now_ros_s, now_mono_s)
        else:
            command = self._follow(step, budget_s, now_ros_s)
        if command is not None:
            self.state = command.state
            self.counters.count_command(command)
        return command

    def _advance(self, now_ros_s: float, now_mono_s: float) -> float:
        """Account for the time since the last tick; return the time to accelerate in [s]."""
        self._watch_ros_clock(now_ros_s)
        dt_s = self._parameters.command_period_s
        if self._tick_s is not None:
            dt_s = max(0.0, now_mono_s - self._tick_s)
        self._tick_s = now_mono_s
        self._tracker.advance(self._linear, dt_s, now_ros_s)
        if dt_s <= self._parameters.command_timeout_s:
            return min(dt_s, self._late_s)
        # After such a gap whoever executes the commands has stopped: do not go on from the
        # speed of before.
        self._ramp_to_zero(dt_s)
        return 0.0

    def _watch_ros_clock(self, now_ros_s: float) -> None:
        if now_ros_s < self._ros_s - self._parameters.max_clock_skew_s:
            self.counters.clock_rewinds += 1
            self._drop_run(f'the ROS clock was set back by {self._ros_s - now_ros_s:.3f} s')
            self._gate.forget_time()
            self._tracker.forget()
        self._ros_s = now_ros_s

    def _current_step(self, now_ros_s: float, now_mono_s: float) -> int | None:
        run = self._run
        if run is None:
            return None
        chunk, timeout_s = run.chunk, self._parameters.command_timeout_s
        if (now_ros_s - chunk.observation_stamp_s > timeout_s
                or now_mono_s - run.received_s > timeout_s):
            self.counters.watchdog_stops += 1
            self._drop_run(f'no fresh action for {timeout_s:g} s')
            return None
        elapsed_s = now_mono_s - run.start_s
        if elapsed_s > len(chunk.deltas) * chunk.period_s + self._parameters.overrun_s:
            self._drop_run('the chunk is finished and no newer one came')
            return None
        step = min(max(0, int(elapsed_s / chunk.period_s)), len(chunk.deltas) - 1)
        if chunk.terminate[step]:
            self._drop_run('the policy considers the task done')
            return None
        return step

    def _follow(self, step: int, budget_s: float, now_ros_s: float) -> Command:
        run, limits = self._run, self._parameters
        pose = self._tracker.now(now_ros_s)
        self._start_sending(pose)
        if pose is None and (limits.workspace_enabled or limits.pose_output):
            self._ramp_to_zero(budget_s)
            return self._command(State.HOLDING, ('no_pose',), None, budget_s, pose)
        linear, angular, clamps = delta_to_twist(
            run.chunk.deltas[step, :6], run.chunk.period_s,
            max_delta_m=limits.max_delta_m, max_delta_rad=limits.max_delta_rad,
            max_linear_mps=limits.max_linear_mps, max_angular_radps=limits.max_angular_radps)
        clamps += self._approach(linear, angular, budget_s, pose)
        gripper = None
        if step != run.step:
            run.step = step
            gripper = self._gripper.update(float(run.chunk.deltas[step, 6]))
        return self._command(State.MOVING, clamps, gripper, budget_s, pose)

    def _approach(self, linear, angular, budget_s: float, pose: Pose | None) -> tuple[str, ...]:
        """Bring the commanded twist towards the wanted one; return what limited it."""
        limits, cuts = self._parameters, {}
        change_mps = limits.max_linear_mps2 * budget_s
        change_radps = limits.max_angular_radps2 * budget_s
        positions = self._positions(pose)
        if positions:
            linear, cuts['workspace'] = self._workspace.shorten(linear, positions)
        reached, cuts['linear_acceleration'] = ramp(self._linear, linear, change_mps)
        if positions and not self._workspace.allows(reached, positions):
            # On the way to an allowed velocity this one is not: braking straight always is.
            reached, _ = ramp(self._linear, np.zeros(3), change_mps)
            cuts['workspace'] = True
        self._linear = reached
        self._angular, cuts['angular_acceleration'] = ramp(self._angular, angular, change_radps)
        return tuple(name for name, cut in cuts.items() if cut)

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
        self._ramp_to_zero(budget_s)
        if self._linear.any() or self._angular.any():
            self._zero_since_s = None
        elif self._zero_since_s is None:
            self._zero_since_s = now_mono_s
        elif now_mono_s - self._zero_since_s > self._parameters.zero_hold_s:
            self._sending = False
            self.state = self._idle_state()
            return None
        pose = self._tracker.now(now_ros_s)
        state = State.FAULT if self.state == State.FAULT else State.STOPPING
        return self._command(state, (), None, budget_s, pose)

    def _start_sending(self, pose: Pose | None) -> None:
        self._zero_since_s = None
        starting = not self._sending or self._target.pose is None
        if self._parameters.pose_output and pose is not None and starting:
            self._target.anchor(pose)
        self._sending = True

    def _ramp_to_zero(self, budget_s: float) -> None:
        limits, rest = self._parameters, np.zeros(3)
        self._linear, _ = ramp(self._linear, rest, limits.max_linear_mps2 * budget_s)
        self._angular, _ = ramp(self._angular, rest, limits.max_angular_radps2 * budget_s)

    def _command(self, state: State, clamps: tuple[str, ...], gripper: float | None,
                 budget_s: float, pose: Pose | None) -> Command:
        if self._target.pose is not None and pose is not None:
            self._target.move(self._linear, self._angular, budget_s, pose)
        run = self._run
        first = run is not None and run.first
        if run is not None:
            run.first = False
        return Command(
            linear=self._linear.copy(), angular=self._angular.copy(), gripper=gripper,
            pose=self._target.pose, state=state, clamps=clamps,
            sequence=self._last_chunk.sequence,
            observation_stamp_s=self._last_chunk.observation_stamp_s, first_of_chunk=first)

    def _drop_run(self, reason: str) -> None:
        self._run = None
        self.stop_reason = reason

    def _idle_state(self) -> State:
        if self.state == State.FAULT and not self._enabled:
            return State.FAULT
        if self._sending:
            return State.STOPPING
        return State.WAITING if self._enabled else State.DISABLED
