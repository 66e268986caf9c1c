"""
The examples of every step, in batches, prepared in the background.

What a step holds depends only on the seed and the step, so a resumed run sees what an
uninterrupted one sees; the processes of a run divide it among themselves.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.examples import ExampleBuilder
from vla_policy_node.training.sources.loading import LoaderPlan
from vla_policy_node.training.sources.loading import RecordLoader
from vla_policy_node.training.sources.records import Record
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.sampler import MixtureSampler

_LEAST_AHEAD = 32


class Drawn(NamedTuple):
    """An example and the name of its source."""

    source: str
    example: Example


class Step(NamedTuple):
    """The batches of one step and process, and a line for each corrupt record passed over."""

    batches: list[list[Drawn]]
    faults: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """
    How a step is cut.

    batch_size records times accumulation batches per process; process of processes.
    """

    batch_size: int
    accumulation: int
    process: int = 0
    processes: int = 1

    @property
    def per_process(self) -> int:
        """Return the records of one step and one process."""
        return self.batch_size * self.accumulation

    @property
    def per_step(self) -> int:
        """Return the records of one step in all processes."""
        return self.per_process * self.processes


class ExampleStream:
    """
    The steps of one process.

    sources: in the order of the sampler's numbers. workers: processes that prepare, 0 for
    threads. Iterating raises SourceError where too many records of a source are corrupt.
    """

    def __init__(
        self, sources: Sequence[Source], sampler: MixtureSampler, builder: ExampleBuilder,
        plan: StreamPlan, *, seed: int, workers: int,
    ) -> None:
        self._sources = sources
        self._sampler = sampler
        self._prepare = _Prepare(builder, seed)
        self._plan = plan
        self._workers = workers

    def steps(self, first: int, end: int) -> Iterator[Step]:
        """Yield steps first to end - 1; similar lengths share a batch."""
        plan = self._plan
        wanted = LoaderPlan(
            first=first * plan.per_step, rank=plan.process, ranks=plan.processes,
            ahead=max(_LEAST_AHEAD, 2 * plan.per_process), workers=self._workers)
        faults: list[str] = []
        with RecordLoader(self._sources, self._sampler, self._prepare, wanted,
                          on_corrupt=faults.append) as loader:
            for _ in range(first, end):
                loaded = [next(loader) for _ in range(plan.per_process)]
                yield Step(self._cut([Drawn(one.source, one.value) for one in loaded]), faults[:])
                faults.clear()

    def _cut(self, drawn: list[Drawn]) -> list[list[Drawn]]:
        """Order by length, so that little is padding, and cut into batches."""
        drawn.sort(key=lambda one: one.example.length)
        size = self._plan.batch_size
        return [drawn[start:start + size] for start in range(0, len(drawn), size)]


class _Prepare:
    """Builds examples, each with a random generator of its own position."""

    def __init__(self, builder: ExampleBuilder, seed: int) -> None:
        self._builder = builder
        self._seed = seed

    def __call__(self, record: Record, position: int) -> Example:
        return self._builder.build(record, np.random.default_rng((self._seed, position)))
