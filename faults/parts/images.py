"""
Malformed camera messages, through the policy node's inference worker.

A message is either refused by the project's own error, and then nothing is published, or the
policy gets its pixels as they are. The worker goes on in any case.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faults.parts import packed_images
from faults.parts import raw_images
from faults.tally import Case
from faults.tally import Tally
from faults.worker_seat import Outcome
from faults.worker_seat import WorkerSeat
from vla_policy_node.nodes.inference_worker import Failure

_FULL = {'raw': 70_000, 'compressed': 30_000}
_PER_EPISODE = 20

Show = Callable[[Any], Outcome]


@contextmanager
def cases(*, short: bool, scratch: Path) -> Iterator[Sequence[Case]]:
    """Yield the cases; the chunk of the policy here is the picture it was given."""
    with WorkerSeat(lambda observation: observation.images['primary']) as seat:
        yield cases_for(seat.show, short=short)


def cases_for(show: Show, *, short: bool) -> list[Case]:
    """Return the cases for whatever takes messages as a worker does."""
    divisor = 50 if short else 1
    return [Case(name=name, injections=_FULL[name] // divisor, play=partial(play, show))
            for name, play in (('raw', _raw), ('compressed', _compressed))]


def _raw(show: Show, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Spoil raw messages; every whole one among them shows exactly its pixels."""
    for _ in range(_PER_EPISODE):
        good = raw_images.good_image(rng)
        spoiled = raw_images.spoil(rng, good)
        outcome = show(spoiled.message)
        if raw_images.is_whole(spoiled.message):
            expected = raw_images.pixels(spoiled.message)
            if spoiled.same_picture:
                expected = show(good).chunk
            trouble = _picture_fault(
                outcome, (spoiled.message.height, spoiled.message.width), expected)
        else:
            trouble = refusal_fault(outcome)
        given = f'{spoiled.kind}: {raw_images.describe(spoiled.message)}' if trouble else ''
        tally.judge(trouble, given, _name(outcome))
    _expect_a_chunk(show(good))


def _compressed(show: Show, number: int, rng: np.random.Generator, tally: Tally) -> None:
    """Damage JPEG and PNG data."""
    for _ in range(_PER_EPISODE):
        good = packed_images.good_image(rng)
        damaged = packed_images.damage(rng, good)
        outcome = show(damaged.message)
        if damaged.expected == 'refused' or (
                damaged.expected == 'any' and outcome.failure is not None):
            trouble = refusal_fault(outcome)
        elif damaged.expected == 'same' or good.format == 'png':
            expected = show(good).chunk
            trouble = _picture_fault(outcome, expected.shape[:2], expected)
        else:
            size = packed_images.header_size(damaged.message)
            trouble = _picture_fault(outcome, size, None)
        given = f'{damaged.kind}: {packed_images.describe(damaged.message)}' if trouble else ''
        tally.judge(trouble, given, _name(outcome))
    _expect_a_chunk(show(good))


def refusal_fault(outcome: Outcome) -> str | None:
    """Return what is wrong where a message had to be refused, None where it was."""
    if outcome.failure is not Failure.BAD_IMAGE:
        return f'expected a refusal as {Failure.BAD_IMAGE.value}, found {_told(outcome)}'
    if outcome.published:
        return 'a chunk was published for a refused message'
    if not outcome.reason or '\n' in outcome.reason or len(outcome.reason) > 1000:
        return f'expected a reason of one line, found {outcome.reason!r}'
    return None


def _picture_fault(
    outcome: Outcome, size: tuple[int, int] | None, expected: np.ndarray | None,
) -> str | None:
    """Return what is wrong where a picture had to be seen; None for size and pixels: any."""
    if outcome.failure is not None:
        return f'expected a picture, found {_told(outcome)}'
    if outcome.published != 1:
        return f'expected one chunk, found {outcome.published}'
    rgb = outcome.chunk
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        return f'expected uint8 (H, W, 3), found {rgb.dtype} {rgb.shape}'
    if size is not None and rgb.shape[:2] != tuple(size):
        return f'expected size {size}, found {rgb.shape[:2]}'
    if expected is not None and not np.array_equal(rgb, expected):
        return f'{int((rgb != expected).any(axis=2).sum())} pixels are others'
    return None


def _name(outcome: Outcome) -> str:
    return outcome.failure.value if outcome.failure is not None else ''


def _told(outcome: Outcome) -> str:
    if outcome.failure is None:
        return 'a chunk'
    return f'{outcome.failure.value}: {outcome.reason}'


def _expect_a_chunk(outcome: Outcome) -> None:
    if outcome.failure is not None:
        raise RuntimeError(f'a good message was refused: {_told(outcome)}')
