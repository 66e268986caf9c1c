"""Which chunks are fit to be executed (rule of motion 1)."""

import math

import numpy as np

from vla_policy_node.control.parameters import ControlParameters
from vla_policy_node.control.types import Chunk
from vla_policy_node.control.types import Reason
from vla_policy_node.control.types import Rejection

# Beyond these a delta is not a large motion to be shortened but nonsense to be refused.
ABSURD_TRANSLATION_M = 1.0
ABSURD_ROTATION_RAD = math.pi
GRIPPER_RANGE = (-1.0, 2.0)


class ChunkGate:
    """Checks chunks against the parameters, the clocks and the chunks accepted before."""

    def __init__(self, parameters: ControlParameters) -> None:
        """Start with no publisher known and no order to keep."""
        self._parameters = parameters
        self._not_before_s = -math.inf
        self.rearm()

    def rearm(self) -> None:
        """Forget publisher and order: the next good chunk may come from a new publisher."""
        self._publisher: str | None = None
        self._called = ''
        self._sequence: int | None = None
        self._observation_s = -math.inf

    def refuse_before(self, stamp_s: float) -> None:
        """Refuse chunks observed before this ROS time: motion is not resumed after a pause."""
        self._not_before_s = stamp_s

    def forget_time(self) -> None:
        """Forget every stamp, because the ROS clock was set back."""
        self._observation_s = -math.inf
        self._not_before_s = -math.inf

    def commit(self, chunk: Chunk) -> None:
        """Remember a chunk as the newest accepted one."""
        self._publisher = chunk.publisher
        self._called = _call(chunk)
        self._sequence = chunk.sequence
        self._observation_s = chunk.observation_stamp_s

    def check(self, chunk: Chunk, now_ros_s: float, now_mono_s: float) -> Rejection | None:
        """Return why the chunk must not be executed, None when it may be. Changes nothing."""
        return (
            self._check_source(chunk)
            or self._check_values(chunk)
            or self._check_period(chunk)
            or self._check_age(chunk, now_ros_s, now_mono_s)
            or self._check_order(chunk))

    def _check_source(self, chunk: Chunk) -> Rejection | None:
        if chunk.publisher_count > 1:
            return Rejection(
                reason=Reason.SECOND_PUBLISHER,
                message=f'expected one publisher of actions, found {chunk.publisher_count} '
                        f'({_call(chunk)[:256]}): stop all but one, or wait some seconds '
                        'where one was killed')
        if self._publisher is not None and chunk.publisher != self._publisher:
            return Rejection(
                reason=Reason.SECOND_PUBLISHER,
                message=f'expected publisher {self._called!r}, found {_call(chunk)!r}: '
                        'enable the controller again to follow the new one')
        frame = self._parameters.action_frame or self._parameters.base_frame
        if chunk.frame != frame:
            return Rejection(
                reason=Reason.UNKNOWN_FRAME,
                message=f'expected deltas in frame {frame!r}, found {chunk.frame[:64]!r}')
        return None

    def _check_values(self, chunk: Chunk) -> Rejection | None:
        deltas, longest = chunk.deltas, self._parameters.max_chunk_length
        shape = deltas.shape if isinstance(deltas, np.ndarray) else ()
        if len(shape) != 2 or shape[1] != 7 or not 1 <= shape[0] <= longest:
            return Rejection(
                reason=Reason.WRONG_SHAPE,
                message=f'expected 1 to {longest} deltas of 7 numbers, found shape {shape}')
        if len(chunk.terminate) != shape[0]:
            return Rejection(
                reason=Reason.WRONG_SHAPE,
                message=f'expected {shape[0]} terminate flags, found {len(chunk.terminate)}')
        if not np.isfinite(deltas).all():
            step, dimension = np.argwhere(~np.isfinite(deltas))[0]
            return Rejection(
                reason=Reason.NON_FINITE,
                message=f'expected finite deltas, found {deltas[step, dimension]} '
                        f'in step {step}, dimension {dimension}')
        return _check_magnitude(deltas)

    def _check_period(self, chunk: Chunk) -> Rejection | None:
        low, high = self._parameters.min_period_s, self._parameters.max_period_s
        if low <= chunk.period_s <= high:
            return None
        return Rejection(
            reason=Reason.BAD_PERIOD,
            message=f'expected a period of {low:g} to {high:g} s, found {chunk.period_s} s')

    def _check_age(self, chunk: Chunk, now_ros_s: float, now_mono_s: float) -> Rejection | None:
        stamp_s, timeout_s = chunk.observation_stamp_s, self._parameters.command_timeout_s
        if not math.isfinite(stamp_s):
            return Rejection(
                reason=Reason.NON_FINITE,
                message=f'expected a finite observation stamp, found {stamp_s}')
        if stamp_s <= 0.0:
            return Rejection(
                reason=Reason.ZERO_STAMP,
                message=f'expected the stamp of a camera frame, found {stamp_s} s')
        age_s = now_ros_s - stamp_s
        if -age_s > self._parameters.max_clock_skew_s:
            return Rejection(
                reason=Reason.FUTURE_STAMP,
                message=f'expected an observation at most {self._parameters.max_clock_skew_s:g} s '
                        f'in the future, found {-age_s:.3f} s: synchronise the clocks')
        if not age_s <= timeout_s:
            return Rejection(
                reason=Reason.STALE_OBSERVATION,
                message=f'expected an observation at most {timeout_s:g} s old, '
                        f'found {age_s:.3f} s')
        if chunk.received_mono_s is not None:
            waited_s = now_mono_s - chunk.received_mono_s
            if not waited_s <= timeout_s:
                return Rejection(
                    reason=Reason.STALE_RECEIPT,
                    message=f'expected receipt at most {timeout_s:g} s ago, '
                            f'found {waited_s:.3f} s')
        return None

    def _check_order(self, chunk: Chunk) -> Rejection | None:
        if self._sequence is not None and chunk.sequence <= self._sequence:
            return Rejection(
                reason=Reason.OUT_OF_ORDER,
                message=f'expected a sequence above {self._sequence}, found {chunk.sequence}')
        if chunk.observation_stamp_s <= self._observation_s:
            return Rejection(
                reason=Reason.OUT_OF_ORDER,
                message=f'expected an observation after {self._observation_s:.6f} s, '
                        f'found {chunk.observation_stamp_s:.6f} s')
        if chunk.observation_stamp_s < self._not_before_s:
            return Rejection(
                reason=Reason.BEFORE_STOP,
                message='expected an observation made after the last stop or enabling, found one '
                        f'from {self._not_before_s - chunk.observation_stamp_s:.4f} s before it')
        return None


def _check_magnitude(deltas: np.ndarray) -> Rejection | None:
    limits = (('translation', deltas[:, 0:3], ABSURD_TRANSLATION_M, 'm'),
              ('rotation', deltas[:, 3:6], ABSURD_ROTATION_RAD, 'rad'))
    for name, values, limit, unit in limits:
        # Componentwise, because the norm of huge numbers overflows.
        largest = float(np.abs(values).max())
        if largest > limit:
            return Rejection(
                reason=Reason.OUT_OF_RANGE,
                message=f'expected each {name} within {limit:.4g} {unit}, found {largest:.4g}')
    low, high = GRIPPER_RANGE
    gripper = deltas[:, 6]
    if gripper.min() < low or gripper.max() > high:
        return Rejection(
            reason=Reason.OUT_OF_RANGE,
            message=f'expected a gripper opening of {low:g} to {high:g}, '
                    f'found {gripper.min():.4g} to {gripper.max():.4g}')
    return None


def _call(chunk: Chunk) -> str:
    """Return name and identity of a publisher for people; names alone are not stable in DDS."""
    return f'{chunk.publisher_name} {chunk.publisher}'.strip()
