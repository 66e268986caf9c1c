"""What is counted of a case, and what is kept of its misses."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
import zlib

import numpy as np

KEPT_MISSES = 5
_SHOWN_CHARACTERS = 400


class Tally:
    """
    Counts of one case: every injected fault was either held or missed.

    :param name: 'part/case'. seed: what the faults are drawn from.
    :param notice: called after every count with this tally.
    """

    def __init__(
        self, name: str, seed: int, notice: Callable[['Tally'], None] | None = None,
    ) -> None:
        self.name = name
        self.seed = seed
        self.episode = 0
        self.held = 0
        self.missed = 0
        self.rejections: Counter[str] = Counter()
        self.zero_ms: list[float] = []
        self.misses: list[dict[str, Any]] = []
        # What else was measured, for summary.json.
        self.figures: dict[str, Any] = {}
        self._notice = notice

    @property
    def injected(self) -> int:
        """How many faults were injected."""
        return self.held + self.missed

    def hold(self, rejection: str = '', *, zero_ms: float | None = None) -> None:
        """
        Count a fault that did no harm.

        :param rejection: the name under which it was refused, '' where nothing had to be.
        :param zero_ms: time from the fault to the zero command [ms], where there is one.
        """
        self.held += 1
        if rejection:
            self.rejections[rejection] += 1
        if zero_ms is not None:
            self.zero_ms.append(zero_ms)
        self._tell()

    def miss(self, found: str, given: Any = '', *, zero_ms: float | None = None) -> None:
        """
        Count a fault that was not held.

        :param found: what happened instead. given: the fault, for whoever repeats it.
        """
        self.missed += 1
        if zero_ms is not None:
            self.zero_ms.append(zero_ms)
        if len(self.misses) < KEPT_MISSES:
            self.misses.append({
                'seed': self.seed, 'episode': self.episode, 'given': _short(given),
                'found': _short(found)})
        self._tell()

    def judge(self, fault: str | None, given: Any = '', rejection: str = '') -> None:
        """Count a miss where there is a fault to tell of, else a hold."""
        if fault is None:
            self.hold(rejection)
        else:
            self.miss(fault, given)

    def result(self) -> dict[str, Any]:
        """Return the counts as they go into summary.json."""
        times = {}
        if self.zero_ms:
            times['fault_to_zero_ms'] = {
                'count': len(self.zero_ms), 'p99': float(np.percentile(self.zero_ms, 99)),
                'worst': max(self.zero_ms)}
        return {'injected': self.injected, 'held': self.held, 'missed': self.missed,
                'rejections': dict(sorted(self.rejections.items())), **times,
                **({'figures': self.figures} if self.figures else {}), 'misses': self.misses}

    def _tell(self) -> None:
        if self._notice is not None:
            self._notice(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One kind of fault, injected in episodes that are independent of each other.

    :param name: within its part.
    :param injections: episodes are played until so many faults were injected.
    :param play: (number of the episode, its random generator, tally) -> counts at least one.
    """

    name: str
    injections: int
    play: Callable[[int, np.random.Generator, Tally], None]


def generator(seed: int, name: str, episode: int) -> np.random.Generator:
    """Return the chance of one episode, the same whatever else is played."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), episode])


def _short(thing: Any) -> str:
    text = thing if isinstance(thing, str) else repr(thing)
    half = _SHOWN_CHARACTERS // 2
    return text if len(text) <= _SHOWN_CHARACTERS else f'{text[:half]} ... {text[-half:]}'
