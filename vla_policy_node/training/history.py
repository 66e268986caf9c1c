"""
A log read as curves: what was measured at which step, over all stages of a run.

Knows nothing of drawing; `journal` knows how the records were written.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
import math
from statistics import fmean
from statistics import median
from typing import Any

from vla_policy_node.training.journal import Record
from vla_policy_node.training.journal import settled
from vla_policy_node.training.journal import Timeline

# (step over all stages, value); one list per stage, because a curve does not go on across stages
# that measure different things under one name.
Curve = list[list[tuple[int, float]]]

CLOSED_LOOP = 'closed loop'

# From so many points on a curve is smoothed, over about this share of the points of its stage.
_SMOOTHED_FROM = 16
_SMOOTHING_SHARE = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of a run: first and last step over all stages, and how many it was to have."""

    name: str
    first: int
    last: int
    planned: int


class History:
    """The records that count, each with its step over all stages."""

    def __init__(self, records: Sequence[Record]) -> None:
        timeline = Timeline()
        self.placed: list[tuple[int, Record]] = [
            (timeline.place(record), record) for record in settled(records)]
        self.placed.sort(key=lambda entry: entry[0])
        self.stages = list(self._stages(timeline.stages))
        self.steps = sum(timeline.stages.values())

    def records(self, kind: str) -> list[tuple[int, Record]]:
        """Return (step, record) of one kind; a record that says no kind is of training."""
        return [(step, record) for step, record in self.placed
                if record.get('kind', 'train') == kind]

    def closed_loops(self) -> list[tuple[int, Record]]:
        """Return (step, record) of every measurement by driving, in order."""
        return [(step, record) for step, record in self.placed if record.get('per_verb')]

    def curve(self, kind: str | None, *path: str) -> Curve:
        """Return the finite values at a path of keys; kind None: in records of any kind."""
        found = [
            (record.get('stage', ''), (step, value)) for step, record in self.placed
            if kind is None or record.get('kind', 'train') == kind
            if (value := _at(record, path)) is not None]
        return [[point for _, point in points]
                for _, points in groupby(found, key=lambda entry: entry[0])]

    def names(self, kind: str | None, key: str) -> list[str]:
        """Return the names below `key`, in order of appearance, 'all' first."""
        names = dict.fromkeys(
            name for _, record in self.placed
            if kind is None or record.get('kind', 'train') == kind
            for name in record.get(key) or {})
        return sorted(names, key=lambda name: name != 'all')

    def last(self, wanted: Callable[[Record], Any]) -> tuple[int, Record] | None:
        """Return the newest (step, record) for which `wanted` is true."""
        return next((entry for entry in reversed(self.placed) if wanted(entry[1])), None)

    def minutes(self) -> float | None:
        """Return the time the run took so far."""
        return max((r['minutes'] for _, r in self.placed if r.get('minutes') is not None),
                   default=None)

    def state(self) -> str:
        """Return in words how far the run is."""
        ends = {record['name'] for _, record in self.records('event')}
        if 'early_stop' in ends:
            return 'stopped early'
        if 'finished' in ends or any(r.get('stage') == CLOSED_LOOP for _, r in self.placed):
            return 'finished'
        if not self.stages:
            return 'no step yet'
        stage = self.stages[-1]
        where = f'step {stage.last - stage.first + 1:,} of {stage.planned:,}'
        return f'not finished: {stage.name}, {where}' if stage.name else f'not finished: {where}'

    def _stages(self, steps: dict[str, int]) -> Iterator[Stage]:
        planned = {r.get('stage', ''): r['of'] for _, r in self.placed if 'of' in r}
        first = 1
        for name, count in steps.items():
            yield Stage(name=name, first=first, last=first + count - 1,
                        planned=planned.get(name, count))
            first += count


def smoothed(curve: Curve) -> Curve:
    """Return the running mean of each stage, centred; short stages stay as they are."""
    return [_running_mean(points) if len(points) >= _SMOOTHED_FROM else points
            for points in curve]


def values(curve: Curve) -> list[float]:
    """Return the values of all stages, in order."""
    return [value for points in curve for _, value in points]


def typical(curve: Curve) -> float | None:
    """Return the median, None without values."""
    found = values(curve)
    return median(found) if found else None


def _running_mean(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    reach = max(1, round(len(points) * _SMOOTHING_SHARE))
    return [(step, fmean(value for _, value in points[max(0, index - reach):index + reach + 1]))
            for index, (step, _) in enumerate(points)]


def _at(record: Record, path: Sequence[str]) -> float | None:
    found: Any = record
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return found if number and math.isfinite(found) else None
