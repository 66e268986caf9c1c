"""
Actions that must not be executed, and actions that must be shortened, for the pure controller.

Every case plays random limits, ticks and chunks. The output is judged by an oracle of its own,
and, where bad chunks come between good ones, by a twin of the controller that never sees them:
a refused chunk must change nothing.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faults.parts.action_play import Make
from faults.parts.action_play import Play
from faults.parts.bad_chunks import LASTING
from faults.parts.bad_chunks import PUBLISHERS
from faults.parts.bad_chunks import spoil
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.control import Chunk
from vla_policy_node.control import MotionController

_FULL = {'malformed': 640_000, 'extreme': 300_000, 'second_publisher': 30_000,
         'interlocks': 30_000, 'only_bad': 2_000}
_PER_EPISODE = 50
# Beyond the bound that follows from the limits: the ticks at both ends.
_ROUNDING_TICKS = 4.0


@contextmanager
def cases(*, short: bool, scratch: Path, make: Make = MotionController) -> Iterator[
        Sequence[Case]]:
    """Yield the cases for controllers that `make` makes."""
    plays = {'malformed': _malformed, 'extreme': _extreme, 'second_publisher': _second_publisher,
             'interlocks': _interlocks, 'only_bad': _only_bad}
    divisor = 200 if short else 1
    yield [Case(name=name, injections=_FULL[name] // divisor, play=partial(play, make))
           for name, play in plays.items()]


def _malformed(make: Make, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Put bad chunks between good ones: refused by name, counted, and without any effect."""
    play, expected = Play(rng, make, twin=True), Counter()
    _must(play.feed(play.chunk()))
    for _ in range(_PER_EPISODE):
        if play.needs_chunk:
            _must(play.feed(play.chunk()))
        bad = spoil(rng, play.chunk(), play.moment)
        expected[bad.reason] += 1
        rejection = play.offer(bad.chunk)
        trouble = play.tick() or _refusal_fault(rejection, bad.reason)
        _judge(tally, trouble, bad.kind, bad.chunk, bad.reason)
    _check_counts(play, expected, tally)


def _extreme(make: Make, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Send acceptable chunks of any size, at any rate: no limit is ever exceeded."""
    play = Play(rng, make)
    for _ in range(_PER_EPISODE):
        chunk = play.chunk()
        trouble = play.feed(chunk)
        for _ in range(int(rng.integers(1, 4))):
            trouble = trouble or play.tick()
        _judge(tally, trouble, 'extreme', chunk)


def _second_publisher(make: Make, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Let a second publisher speak up in motion: refused, and everything brakes to rest."""
    play, expected = Play(rng, make), Counter()
    names = tuple(PUBLISHERS)
    for _ in range(_PER_EPISODE // 5):
        # What was seen before the stop is refused afterwards.
        trouble = play.tick() or play.feed(play.chunk()) or _ticks(play, 5)
        kind = names[rng.integers(len(names))]
        reason, spoiler = PUBLISHERS[kind]
        bad = spoiler(rng, play.chunk(), play.moment)
        rejection = play.offer(bad)
        play.halt()
        expected[reason] += 1
        trouble = trouble or _refusal_fault(rejection, reason) or _ticks(play, 5)
        _judge(tally, trouble, kind, bad, reason)
    _check_counts(play, expected, tally)


def _interlocks(make: Make, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Offer good chunks while an interlock forbids motion: refused by its name, nothing moves."""
    for _ in range(_PER_EPISODE // 5):
        play = Play(rng, make, deadman=True)
        play.controller.hold_deadman(True, play.robot.mono_s)
        _must(play.feed(play.chunk()))
        trouble = _ticks(play, 3)
        reason = tuple(_INTERLOCKS)[rng.integers(len(_INTERLOCKS))]
        chunk = _INTERLOCKS[reason](play)
        trouble = trouble or _refusal_fault(play.offer(chunk), reason) or _ticks(play, 8)
        _judge(tally, trouble, reason, chunk, reason)


def _disable(play: Play) -> Chunk:
    if play.rng.integers(2):
        play.controller.emergency_stop('fault suite')
    else:
        play.controller.set_enabled(False)
    play.halt()
    return play.chunk()


def _stop(play: Play) -> Chunk:
    chunk = play.chunk()
    _must(play.tick())
    play.controller.stop('fault suite')
    play.halt()
    return chunk


def _let_go(play: Play) -> Chunk:
    play.controller.hold_deadman(False, play.robot.mono_s)
    play.halt()
    return play.chunk()


def _stop_clock(play: Play) -> Chunk:
    play.clock_runs = False
    end_s = play.robot.mono_s + play.limits.clock_timeout_s
    while play.robot.mono_s <= end_s + play.limits.command_period_s:
        play.controller.hold_deadman(True, play.robot.mono_s)
        _must(play.tick(play.limits.command_period_s))
    play.halt()
    return play.chunk()


# Each closes an interlock and returns a chunk that is good but for it.
_INTERLOCKS = {'not_enabled': _disable, 'before_stop': _stop, 'deadman_released': _let_go,
               'clock_stopped': _stop_clock}


def _only_bad(make: Make, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Send bad chunks alone from some moment on: zero in time, then silence."""
    play = Play(rng, make)
    _must(play.feed(play.chunk()) or _ticks(play, 5))
    start_s, zero_s, trouble = play.robot.mono_s, None, None
    deadline_s = start_s + _longest_stop_s(play)
    while trouble is None and play.robot.mono_s < deadline_s + play.limits.zero_hold_s:
        bad = spoil(rng, play.chunk(), play.moment, LASTING[rng.integers(len(LASTING))])
        trouble = _refusal_fault(play.offer(bad.chunk), bad.reason) or play.tick()
        if zero_s is None and _at_rest(play.command):
            zero_s = play.robot.mono_s
        if play.command is not None and play.robot.mono_s > deadline_s \
                and not _at_rest(play.command):
            trouble = f'still moving {play.robot.mono_s - start_s:.3f} s after the last good chunk'
    if trouble is None and play.command is not None:
        trouble = 'expected silence after the zeros, found commands'
    zero_ms = None if zero_s is None else 1e3 * (zero_s - start_s)
    if trouble is None:
        tally.hold(zero_ms=zero_ms)
    else:
        tally.miss(trouble, play.limits, zero_ms=zero_ms)


def _longest_stop_s(play: Play) -> float:
    """Return the timeout and the time that braking from full speed takes [s]."""
    limits = play.limits
    braking_s = max(limits.max_linear_mps / limits.max_linear_mps2,
                    limits.max_angular_radps / limits.max_angular_radps2)
    return (limits.command_timeout_s + braking_s
            + _ROUNDING_TICKS * limits.command_period_s)


def _at_rest(command: Any) -> bool:
    return command is None or not (command.linear.any() or command.angular.any())


def _ticks(play: Play, count: int) -> str | None:
    return next((trouble for _ in range(count) if (trouble := play.tick())), None)


def _refusal_fault(rejection: Any, reason: str) -> str | None:
    if rejection is None:
        return f'accepted, expected {reason}'
    if rejection.reason.value != reason:
        return f'refused as {rejection}, expected {reason}'
    return 'the refusal is not one line' if '\n' in str(rejection) else None


def _check_counts(play: Play, expected: Counter, tally: Tally) -> None:
    """Count a miss where the controller's own counters do not say what was injected."""
    counters = play.controller.counters
    found = {reason: count for reason, count in counters.rejections.items() if count}
    if found != dict(expected) or counters.rejected != expected.total():
        tally.miss(f'counted {found} and {counters.rejected} in all', dict(expected))


def _must(trouble: str | None) -> None:
    """Raise where something went wrong before a fault was injected."""
    if trouble:
        raise RuntimeError(trouble)


def _judge(
    tally: Tally, trouble: str | None, kind: str, chunk: Chunk, reason: str = '',
) -> None:
    # A text of every chunk would take longer than the chunk.
    tally.judge(trouble, f'{kind}: {_short(chunk)}' if trouble else '', reason)


def _short(chunk: Chunk) -> str:
    deltas = np.array2string(np.asarray(chunk.deltas), threshold=30, precision=17)
    return (f'frame {chunk.frame[:40]!r}, sequence {chunk.sequence}, observed '
            f'{chunk.observation_stamp_s!r}, received {chunk.received_mono_s!r}, period '
            f'{chunk.period_s!r}, publisher {chunk.publisher!r} of {chunk.publisher_count}, '
            f'{len(chunk.terminate)} flags, deltas {" ".join(deltas.split())}')
