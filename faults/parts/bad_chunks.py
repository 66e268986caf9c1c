"""Chunks with one thing wrong each, and the name under which each must be refused."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import Any

import numpy as np

from vla_policy_node.control import Chunk
from vla_policy_node.control import ControlParameters

_NOT_FINITE = (math.nan, math.inf, -math.inf)
_FRAMES = ('', 'Base', 'base ', '/base', 'base_link', 'world', 'b\0se', '\u202ebase', 'x' * 5000)
_BAD_PERIODS = (0.0, -0.0, -0.2, 5e-324, 1e-9, 1e308, math.nan, math.inf, -math.inf)
# The gate's own bounds: what lies beyond is no motion to be shortened.
_ABSURD = (1.0, math.pi)
_GRIPPER = (-1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a chunk is offered, and what was accepted before it; times in s."""

    limits: ControlParameters
    ros_s: float
    mono_s: float
    last_sequence: int
    last_stamp_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BadChunk:
    """A chunk and the name under which it must be refused."""

    kind: str
    chunk: Chunk
    reason: str


Spoiler = Callable[[np.random.Generator, Chunk, Moment], Chunk]


def spoil(rng: np.random.Generator, good: Chunk, moment: Moment, kind: str = '') -> BadChunk:
    """Return a good chunk with one thing made wrong, of a kind drawn unless given."""
    kind = kind or KIND_NAMES[rng.integers(len(KIND_NAMES))]
    reason, spoiler = KINDS[kind]
    return BadChunk(kind=kind, chunk=spoiler(rng, good, moment), reason=reason)


def _not_finite(rng, good, moment):
    return _with_number(rng, good, _NOT_FINITE[rng.integers(3)], rng.integers(7))


def _absurd(rng, good, moment):
    dimension = int(rng.integers(7))
    sign = 1.0 if rng.integers(2) else -1.0
    if dimension == 6:
        bound = _GRIPPER[1] if sign > 0 else -_GRIPPER[0]
    else:
        bound = _ABSURD[dimension // 3]
    size = (1e308, np.nextafter(bound, np.inf), bound * 10.0 ** rng.uniform(0.001, 300.0))
    return _with_number(rng, good, sign * size[rng.integers(3)], dimension)


def _wrong_shape(rng, good, moment):
    longest = moment.limits.max_chunk_length
    shapes = ((0, 7), (longest + 1, 7), (longest * 20, 7), (3, 6), (3, 8), (7,), (1, 3, 7),
              (7, 1), (0, 0), ())
    shape = shapes[rng.integers(len(shapes))]
    return _with_deltas(good, np.full(shape, 0.01))


def _wrong_flags(rng, good, moment):
    wrong = len(good.deltas) + (1, 2, -1)[rng.integers(3)]
    return replace(good, terminate=(False,) * max(0, wrong))


def _wrong_frame(rng, good, moment):
    return replace(good, frame=_FRAMES[rng.integers(len(_FRAMES))])


def _bad_period(rng, good, moment):
    edges = (np.nextafter(moment.limits.min_period_s, 0.0),
             np.nextafter(moment.limits.max_period_s, np.inf))
    periods = _BAD_PERIODS + edges
    return replace(good, period_s=float(periods[rng.integers(len(periods))]))


def _old_stamp(rng, good, moment):
    age_s = moment.limits.command_timeout_s + 10.0 ** rng.uniform(-6.0, 4.9)
    return replace(good, observation_stamp_s=moment.ros_s - age_s)


def _future_stamp(rng, good, moment):
    ahead_s = moment.limits.max_clock_skew_s + 10.0 ** rng.uniform(-6.0, 12.0)
    return replace(good, observation_stamp_s=moment.ros_s + ahead_s)


def _zero_stamp(rng, good, moment):
    return replace(good, observation_stamp_s=float((0.0, -0.0, -1.0, -1e308)[rng.integers(4)]))


def _not_finite_stamp(rng, good, moment):
    return replace(good, observation_stamp_s=_NOT_FINITE[rng.integers(3)])


def _old_receipt(rng, good, moment):
    waited_s = moment.limits.command_timeout_s + 10.0 ** rng.uniform(-6.0, 6.0)
    times = (moment.mono_s - waited_s, math.nan, -math.inf)
    return replace(good, received_mono_s=times[rng.integers(3)])


def _old_sequence(rng, good, moment):
    back = (0, 1, 2, 2 ** 32, 2 ** 63)[rng.integers(5)]
    return replace(good, sequence=moment.last_sequence - back)


def _old_order(rng, good, moment):
    # Newer by number, but not by what it was computed from.
    earliest_s = moment.ros_s - moment.limits.command_timeout_s
    back_s = rng.uniform(0.0, 1.0) * max(0.0, moment.last_stamp_s - earliest_s)
    stamp_s = moment.last_stamp_s if rng.integers(2) else moment.last_stamp_s - 0.9 * back_s
    return replace(good, observation_stamp_s=stamp_s)


def _another_publisher(rng, good, moment):
    names = ('', 'Policy', 'policy ', 'rogue', 'policy\0')
    return replace(good, publisher=names[rng.integers(len(names))])


def _two_publishers(rng, good, moment):
    return replace(good, publisher_count=int((2, 3, 2 ** 31)[rng.integers(3)]))


KINDS: dict[str, tuple[str, Spoiler]] = {
    'number not finite': ('non_finite', _not_finite),
    'number absurd': ('out_of_range', _absurd),
    'wrong shape': ('wrong_shape', _wrong_shape),
    'wrong flags': ('wrong_shape', _wrong_flags),
    'wrong frame': ('unknown_frame', _wrong_frame),
    'wrong period': ('bad_period', _bad_period),
    'old stamp': ('stale_observation', _old_stamp),
    'future stamp': ('future_stamp', _future_stamp),
    'zero stamp': ('zero_stamp', _zero_stamp),
    'stamp not finite': ('non_finite', _not_finite_stamp),
    'old receipt': ('stale_receipt', _old_receipt),
    'old sequence': ('out_of_order', _old_sequence),
    'old order': ('out_of_order', _old_order),
}
KIND_NAMES = tuple(KINDS)
# Out of order by stamp is a stale one as soon as the last good chunk is.
LASTING = tuple(kind for kind in KINDS if kind != 'old order')
# These stop the motion as well, so they are played apart.
PUBLISHERS: dict[str, tuple[str, Spoiler]] = {
    'another publisher': ('second_publisher', _another_publisher),
    'two publishers': ('second_publisher', _two_publishers),
}


def _with_number(
    rng: np.random.Generator, good: Chunk, number: float, dimension: int,
) -> Chunk:
    deltas = good.deltas.copy()
    deltas[rng.integers(len(deltas)), dimension] = number
    return replace(good, deltas=deltas)


def _with_deltas(good: Chunk, deltas: Any) -> Chunk:
    return replace(good, deltas=deltas, terminate=(False,) * (len(deltas) if deltas.ndim else 0))
