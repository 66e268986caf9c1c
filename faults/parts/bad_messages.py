"""Chunk messages with one thing wrong each, and the name under which each must be refused."""

from collections.abc import Callable
from dataclasses import dataclass
import math

from builtin_interfaces.msg import Duration
from builtin_interfaces.msg import Time
import numpy as np
from vla_msgs.msg import EndEffectorDelta
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.control import ControlParameters
from vla_policy_node.nodes.conversions import time_message

LIMITS = ControlParameters(command_timeout_s=0.5)
PERIOD_S = 0.2
_FRAMES = ('', 'Base', 'base ', '/base', 'base_link', 'world', 'b\0se', '\u202ebase', 'x' * 5000)
_NOT_FINITE = (math.nan, math.inf, -math.inf)
_HUGE = (1e308, 1.7976931348623157e308, 7.0)
_TINY = (5e-324, -5e-324, 2.2e-308, -1e-300)
_DURATIONS = (
    Duration(), Duration(nanosec=1), Duration(sec=-1), Duration(sec=-1, nanosec=200_000_000),
    Duration(nanosec=19_999_999), Duration(sec=1, nanosec=1), Duration(sec=2**31 - 1))
# A change of the clocks of two processes must not decide.
_MARGIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a chunk is sent [ns], and the sequence and observation of the last good one."""

    now_ns: int
    last_sequence: int
    last_observation_ns: int


Spoiler = Callable[[np.random.Generator, EndEffectorDeltaChunk, Moment], None]


def chunk_message(sequence: int, now_ns: int, x_m: float, y_m: float) -> EndEffectorDeltaChunk:
    """Return a good chunk of one delta, observed now."""
    message = EndEffectorDeltaChunk(
        sequence=sequence, deltas=[_delta(x_m, y_m)], observation_stamp=time_message(now_ns))
    message.header.frame_id = 'base'
    message.header.stamp = time_message(now_ns)
    message.period.nanosec = round(PERIOD_S * 1e9)
    return message


def _delta(x_m: float, y_m: float) -> EndEffectorDelta:
    delta = EndEffectorDelta(gripper=1.0)
    delta.translation.x, delta.translation.y = x_m, y_m
    return delta


def _set_number(rng: np.random.Generator, message: EndEffectorDeltaChunk, number: float) -> None:
    delta, dimension = message.deltas[0], int(rng.integers(7))
    if dimension == 6:
        delta.gripper = number
    else:
        setattr((delta.translation, delta.rotation)[dimension // 3], 'xyz'[dimension % 3], number)


def _not_finite(rng, message, moment):
    _set_number(rng, message, _NOT_FINITE[rng.integers(3)])


def _huge(rng, message, moment):
    sign = -1.0 if rng.integers(2) else 1.0
    _set_number(rng, message, sign * _HUGE[rng.integers(3)])


def _too_few(rng, message, moment):
    message.deltas = []


def _too_many(rng, message, moment):
    count = LIMITS.max_chunk_length + int((1, 2, 1000)[rng.integers(3)])
    message.deltas = [_delta(0.01, 0.0)] * count


def _wrong_frame(rng, message, moment):
    message.header.frame_id = _FRAMES[rng.integers(len(_FRAMES))]


def _wrong_period(rng, message, moment):
    message.period = _DURATIONS[rng.integers(len(_DURATIONS))]


def _old_stamp(rng, message, moment):
    age_s = LIMITS.command_timeout_s + 10.0 ** rng.uniform(-3.0, 5.0)
    message.observation_stamp = time_message(moment.now_ns - round(age_s * 1e9))


def _future_stamp(rng, message, moment):
    ahead_s = LIMITS.max_clock_skew_s + _MARGIN_S + 10.0 ** rng.uniform(-3.0, 8.0)
    message.observation_stamp = time_message(moment.now_ns + round(ahead_s * 1e9))


def _zero_stamp(rng, message, moment):
    message.observation_stamp = (Time(), Time(sec=-1), Time(sec=-2**31))[rng.integers(3)]


def _old_sequence(rng, message, moment):
    message.sequence = max(0, moment.last_sequence - int((0, 1, 2, 100)[rng.integers(4)]))


def _old_order(rng, message, moment):
    # Newer by number, but not by what it was computed from.
    back_ns = (0, 1, 1_000_000)[rng.integers(3)]
    message.observation_stamp = time_message(moment.last_observation_ns - back_ns)


# name -> (reason of the rejection, what spoils a good message).
KINDS: dict[str, tuple[str, Spoiler]] = {
    'not finite': ('non_finite', _not_finite),
    'huge': ('out_of_range', _huge),
    'too few': ('wrong_shape', _too_few),
    'too many': ('wrong_shape', _too_many),
    'wrong frame': ('unknown_frame', _wrong_frame),
    'wrong period': ('bad_period', _wrong_period),
    'old stamp': ('stale_observation', _old_stamp),
    'future stamp': ('future_stamp', _future_stamp),
    'zero stamp': ('zero_stamp', _zero_stamp),
    'old sequence': ('out_of_order', _old_sequence),
    'old order': ('out_of_order', _old_order),
}


def make_tiny(rng: np.random.Generator, message: EndEffectorDeltaChunk) -> None:
    """Make every number of a message so small that it hardly is one; it stays a good one."""
    delta = message.deltas[0]
    for part in (delta.translation, delta.rotation):
        for axis in 'xyz':
            setattr(part, axis, float(rng.choice(_TINY)))
