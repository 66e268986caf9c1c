"""Plain data that goes into the controller and comes out of it."""

from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from enum import Enum
from enum import IntEnum

import numpy as np


class State(IntEnum):
    """What the controller is doing; mirrors the constants of vla_msgs/msg/ControllerStatus."""

    DISABLED = 0
    WAITING = 1
    MOVING = 2
    STOPPING = 3
    HOLDING = 4
    FAULT = 5


STATE_TEXT = {
    State.DISABLED: 'disabled: nothing moves until ~/enable is called with true',
    State.WAITING: 'waiting for a fresh action; nothing is sent',
    State.MOVING: 'moving',
    State.STOPPING: 'stopping: ramping to zero, then sending zeros, then silence',
    State.HOLDING: 'holding at zero: the tool pose is not known, so motion is withheld',
    State.FAULT: 'fault: nothing moves until ~/enable is called with true again',
}


class Reason(str, Enum):
    """Why a message was rejected."""

    WRONG_SHAPE = 'wrong_shape'
    NON_FINITE = 'non_finite'
    OUT_OF_RANGE = 'out_of_range'
    UNKNOWN_FRAME = 'unknown_frame'
    BAD_PERIOD = 'bad_period'
    ZERO_STAMP = 'zero_stamp'
    FUTURE_STAMP = 'future_stamp'
    STALE_OBSERVATION = 'stale_observation'
    STALE_RECEIPT = 'stale_receipt'
    OUT_OF_ORDER = 'out_of_order'
    SECOND_PUBLISHER = 'second_publisher'
    BEFORE_STOP = 'before_stop'
    NOT_ENABLED = 'not_enabled'
    DEADMAN_RELEASED = 'deadman_released'
    CLOCK_STOPPED = 'clock_stopped'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a message was not used: a code to count by and one line to read."""

    reason: Reason
    message: str

    def __str__(self) -> str:
        return f'{self.reason.value}: {self.message}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Deltas computed from one observation. Nothing is checked here; the gate does that.

    frame: the frame the deltas are expressed in.
    sequence: counts the chunks of one publisher, strictly increasing.
    observation_stamp_s: ROS time of the camera frame [s].
    period_s: time one delta takes [s].
    deltas: (K, 7) float64: translation [m], rotation vector [rad], gripper 0 closed .. 1 open.
    terminate: (K,) bool, True where the policy considers the task done.
    publisher: identity of the publisher, which never changes; publisher_name: what it is called
        at the moment, for messages. publisher_count: how many there are; where there are several,
        both list them all.
    received_mono_s: monotonic time of receipt [s]; None means the moment of `accept`.
    """

    frame: str
    sequence: int
    observation_stamp_s: float
    period_s: float
    deltas: np.ndarray
    terminate: tuple[bool, ...]
    publisher: str = ''
    publisher_name: str = ''
    publisher_count: int = 1
    received_mono_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """position: (3,) float64 [m]; quaternion: (4,) float64 unit norm, order w x y z."""

    position: np.ndarray
    quaternion: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to send now, all of it within the limits.

    linear, angular: (3,) float64 [m/s], [rad/s] in the base frame; angular about the tool point.
    gripper: 1.0 open, 0.0 close, None when nothing changes.
    pose: where the tool should be now; None unless `pose_output` is set and the pose is known.
    clamps: names of the limits that shortened this command.
    sequence, observation_stamp_s: of the chunk behind the command (the last one when stopping).
    first_of_chunk: True on the first command of that chunk.
    """

    linear: np.ndarray
    angular: np.ndarray
    gripper: float | None
    pose: Pose | None
    state: State
    clamps: tuple[str, ...]
    sequence: int
    observation_stamp_s: float
    first_of_chunk: bool


@dataclass(slots=True)
class Counters:
    """Counts since the controller was made; `rejections` by reason, `clamps` by limit."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    rejections: Counter = field(default_factory=Counter)
    last_rejection: str = ''
    commands: int = 0
    commands_clamped: int = 0
    clamps: Counter = field(default_factory=Counter)
    last_clamp: str = ''
    watchdog_stops: int = 0
    emergency_stops: int = 0
    deadman_stops: int = 0
    clock_rewinds: int = 0
    clock_stalls: int = 0

    def count_rejection(self, rejection: Rejection) -> None:
        """Count a rejected message and keep its text."""
        self.rejected += 1
        self.rejections[rejection.reason.value] += 1
        self.last_rejection = str(rejection)

    def count_command(self, command: Command) -> None:
        """Count a command; a ramp in velocity or acceleration is not a clamped command."""
        self.commands += 1
        self.clamps.update(command.clamps)
        shortened = [name for name in command.clamps
                     if not name.endswith(('acceleration', 'jerk'))]
        if shortened:
            self.commands_clamped += 1
            self.last_clamp = shortened[-1]
