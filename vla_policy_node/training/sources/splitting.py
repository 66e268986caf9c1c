"""Training and validation records of a source, never from the same episode."""

import hashlib
from typing import Any
from typing import NamedTuple

import numpy as np

from vla_policy_node.training.sources.records import Record
from vla_policy_node.training.sources.records import RobotSource
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.records import SourceError

_RECORDS_AT_A_TIME = 2 ** 20


class Subset:
    """
    Some records of a source, itself a source.

    The chosen numbers are all that is held, at most 4 bytes each below 2**32 records.
    """

    def __init__(self, source: Source, chosen: np.ndarray) -> None:
        """Take a source and the (M,) numbers of its records."""
        self.name = source.name
        self.kind = source.kind
        self._source = source
        self._chosen = chosen.astype(np.min_scalar_type(max(len(source) - 1, 0)))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._chosen[index])]

    @property
    def episodes(self) -> np.ndarray:
        """(M,) int64: the episode each record belongs to."""
        return np.asarray(self._source.episodes)[self._chosen]

    def fingerprint(self) -> str:
        """Return a sha256 over the source's and the chosen numbers."""
        digest = hashlib.sha256(self._source.fingerprint().encode('ascii'))
        digest.update(self._chosen.astype('<i8').tobytes())
        return digest.hexdigest()


class RobotSubset(Subset):
    """Some steps of a source of demonstrations."""

    def __init__(self, source: RobotSource, chosen: np.ndarray) -> None:
        """Take a source and the (M,) numbers of its records."""
        super().__init__(source, chosen)
        self._source: RobotSource = source

    def actions(self) -> np.ndarray:
        """
        Return (M, 7) float64 canonical actions of the chosen steps.

        Of a source that leaves out unusable steps, so that nobody knows whose actions the others
        are, they are those of all its steps.
        """
        actions = self._source.actions()
        return actions[self._chosen] if len(actions) == len(self._source) else actions


class Split(NamedTuple):
    """The two sides of a source."""

    train: Source
    validation: Source


def split_source(source: Source, *, share: float, seed: int) -> Split:
    """
    Set aside about this share of the episodes for validation.

    An episode's side depends on its number, share and seed alone: it stays when others are added,
    and sources that number the same episodes alike are split alike. Each side gets at least one
    episode; share 0 sets none aside. Raises SourceError for a source with one episode only, and
    ValueError for a share outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f'expected a share of episodes from 0 to below 1, found {share}')
    if share == 0.0:
        return Split(source, _subset(source, np.empty(0, np.int64)))
    episodes = source.episodes
    lowest, highest = _extremes(episodes, seed)
    if lowest == highest:
        raise SourceError(f'source {source.name}: expected at least two episodes, one of them to '
                          f'validate on, found {min(len(episodes), 1)}; record more, or set the '
                          'share of validation to 0')
    # The limit itself is set aside, the highest hash never.
    limit = np.clip(np.uint64(share * 2.0 ** 64), lowest, highest - np.uint64(1))
    held_out = np.concatenate([
        _hashes(part, seed) <= limit for part in _parts(episodes)])
    return Split(_subset(source, np.flatnonzero(~held_out)),
                 _subset(source, np.flatnonzero(held_out)))


def _subset(source: Any, chosen: np.ndarray) -> Subset:
    return (RobotSubset if source.kind == 'robot' else Subset)(source, chosen)


def _extremes(episodes: np.ndarray, seed: int) -> tuple[np.uint64, np.uint64]:
    """Return the lowest and the highest hash, the same without any episode."""
    if not len(episodes):
        return np.uint64(0), np.uint64(0)
    ends = [(hashes.min(), hashes.max()) for hashes in (
        _hashes(part, seed) for part in _parts(episodes))]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _parts(episodes: np.ndarray) -> list[np.ndarray]:
    """Cut into views that are small enough to compute with."""
    return [episodes[start:start + _RECORDS_AT_A_TIME]
            for start in range(0, len(episodes), _RECORDS_AT_A_TIME)]


def _hashes(episodes: np.ndarray, seed: int) -> np.ndarray:
    """Return (N,) uint64 that spread evenly, equal for equal episodes (splitmix64)."""
    key = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), 'little')
    value = np.asarray(episodes, np.int64).astype(np.uint64) ^ np.uint64(key)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
