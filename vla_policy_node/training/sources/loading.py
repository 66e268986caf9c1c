"""
Reads and prepares records ahead of the training, in threads or processes, in the stream's order.

Knows nothing of tokens or batches: what becomes of a record is the callable's business.
"""

from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import Executor
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import multiprocessing
import os
import pickle
import signal
import threading
import time
from typing import Any

from vla_policy_node.training.sources.records import Record
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.sampler import MixtureSampler

# A source that gives so many corrupt records in a row gives none at all.
_ATTEMPTS = 32
# Before so many draws of a source, a share of corrupt ones says nothing.
_ENOUGH_DRAWS = 100

Prepare = Callable[[Record, int], Any]


class LoadingError(RuntimeError):
    """A record could not be prepared, for a reason that is not the record's; it is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What prepare returned for a position, and what the record it came from is called."""

    position: int
    source: str
    record: int
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderPlan:
    """
    Which positions are loaded and how.

    Positions p with p % ranks == rank, from `first` on. ahead: how many are being prepared or
    wait for the training, which bounds the memory. workers: processes; 0 is `threads` threads,
    which suffice where decoding pictures takes most of the time.
    """

    first: int = 0
    rank: int = 0
    ranks: int = 1
    ahead: int = 32
    threads: int = 2
    workers: int = 0
    max_corrupt_share: float = 0.05


class RecordLoader:
    """
    An endless iterator over Loaded, in the order of the positions; a context manager.

    A corrupt record (RecordError, from source or prepare) is reported, counted and replaced by
    the next of its source. Iterating raises SourceError where a source has more of them than
    max_corrupt_share in 100 draws or more, and LoadingError where prepare fails otherwise.
    """

    def __init__(
        self, sources: Sequence[Source], sampler: MixtureSampler, prepare: Prepare,
        plan: LoaderPlan, *, on_corrupt: Callable[[str], None] = lambda message: None,
    ) -> None:
        """
        Start reading. sources in the order of the sampler's numbers.

        prepare(record, position) runs in the background, on a pickled copy of its own in each
        thread or process, as do the sources. on_corrupt: takes one line per corrupt record, in
        the order of the positions, in the thread that iterates.
        """
        self._plan = plan
        self._names = [source.name for source in sources]
        self._on_corrupt = on_corrupt
        self._next = plan.first + (plan.rank - plan.first) % plan.ranks
        self._drawn: Counter[str] = Counter()
        self._corrupt: Counter[str] = Counter()
        self._waited_s = 0.0
        self._since_s = time.perf_counter()
        self._pool, self._read = _start_pool(_Reader(sources, sampler, prepare), plan)
        self._pending: deque[Future] = deque()
        self._fill()

    @property
    def corrupt(self) -> dict[str, int]:
        """How many corrupt records were met so far, by source."""
        return dict(self._corrupt)

    def waiting_share(self) -> float:
        """Return the share of the time since the last call that was spent waiting for data."""
        now = time.perf_counter()
        share = self._waited_s / max(now - self._since_s, 1e-9)
        self._waited_s, self._since_s = 0.0, now
        return min(share, 1.0)

    def __iter__(self) -> Iterator[Loaded]:
        return self

    def __next__(self) -> Loaded:
        started = time.perf_counter()
        try:
            self._fill()
            outcome = self._pending.popleft().result()
            self._fill()
        except BrokenExecutor as error:
            raise LoadingError(
                'expected prepared records, found that a worker process has ended (killed for '
                'memory?); use fewer workers, or 0 for threads') from error
        finally:
            self._waited_s += time.perf_counter() - started
        return self._counted(outcome)

    def close(self) -> None:
        """Stop reading; what is being prepared is waited for and dropped."""
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> 'RecordLoader':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self) -> None:
        while len(self._pending) < self._plan.ahead:
            self._pending.append(self._pool.submit(self._read, self._next))
            self._next += self._plan.ranks

    def _counted(self, outcome: '_Outcome') -> Loaded:
        """Report and count what went wrong on the way to a record."""
        name = self._names[outcome.source]
        self._drawn[name] += len(outcome.faults) + (outcome.record is not None)
        self._corrupt[name] += len(outcome.faults)
        for fault in outcome.faults:
            self._on_corrupt(fault)
        drawn, corrupt = self._drawn[name], self._corrupt[name]
        too_many = drawn >= _ENOUGH_DRAWS and corrupt > self._plan.max_corrupt_share * drawn
        if outcome.record is None or (too_many and outcome.faults):
            raise SourceError(
                f'source {name}: expected at most {self._plan.max_corrupt_share:.0%} corrupt '
                f'records, found {corrupt} of {drawn}; repair or remove the source; the last: '
                f'{outcome.faults[-1]}')
        return Loaded(position=outcome.position, source=name, record=outcome.record,
                      value=outcome.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """record: None where all attempts were corrupt. faults: a line for each corrupt record."""

    position: int
    source: int
    record: int | None
    value: Any
    faults: tuple[str, ...]


class _Reader:
    """Reads and prepares the record of one position at a time."""

    def __init__(
        self, sources: Sequence[Source], sampler: MixtureSampler, prepare: Prepare,
    ) -> None:
        self._sources = list(sources)
        self._sampler = sampler
        self._prepare = prepare

    def __call__(self, position: int) -> _Outcome:
        faults: list[str] = []
        for attempt in range(_ATTEMPTS):
            draw = self._sampler.replacement(position, attempt)
            source = self._sources[draw.source]
            where = f'{source.name}, record {draw.record}'
            try:
                value = self._prepare(source[draw.record], position)
            except RecordError as error:
                faults.append(f'{where}: {error}')
            except Exception as error:
                found = ' '.join(f'{type(error).__name__}: {error}'.split())
                raise LoadingError(
                    f'{where}: expected a prepared record, found {found}') from error
            else:
                return _Outcome(position=position, source=draw.source, record=draw.record,
                                value=value, faults=tuple(faults))
        return _Outcome(position=position, source=draw.source, record=None, value=None,
                        faults=tuple(faults))


def _start_pool(
    reader: _Reader, plan: LoaderPlan,
) -> tuple[Executor, Callable[[int], _Outcome]]:
    """Return a pool whose threads or processes have a copy of the reader, and the way to it."""
    if plan.workers:
        return ProcessPoolExecutor(
            plan.workers, mp_context=multiprocessing.get_context('spawn'),
            initializer=_begin_process, initargs=(reader,)), _read_in_process
    copies = _ThreadCopies(reader)
    return ThreadPoolExecutor(plan.threads, 'records', copies.take), copies.read


class _ThreadCopies:
    """A copy of the reader for each thread: files and tokenizers are not made for several."""

    def __init__(self, reader: _Reader) -> None:
        self._buffers: list[pickle.PickleBuffer] = []
        # Out of band, arrays are shared by the copies instead of copied.
        self._pickled = pickle.dumps(
            reader, protocol=5, buffer_callback=self._buffers.append)
        self._local = threading.local()

    def take(self) -> None:
        self._local.reader = pickle.loads(self._pickled, buffers=self._buffers)

    def read(self, position: int) -> _Outcome:
        return self._local.reader(position)


_process_reader: _Reader | None = None


def _begin_process(reader: _Reader) -> None:
    global _process_reader
    _process_reader = reader
    # Ctrl-C reaches the whole group; the parent process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for it for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _read_in_process(position: int) -> _Outcome:
    return _process_reader(position)
