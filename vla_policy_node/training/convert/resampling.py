"""
Which observations of an episode become the frames of a data set, one for every period.

Observations come when cameras send them, frames of a LeRobot episode at 0, 1/fps, 2/fps and so
on. Nothing is interpolated: a frame has the picture and the action of one observation, the one
that is nearest in time. Knows nothing of pictures and files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_policy_node.recorded.motion import nearest

# Of a period. A farther pause between two observations is a gap, and an episode has no gaps.
MAX_PAUSE = 1.5


class Observations(Protocol):
    """stamp_ns: (N,) int64 ascending. actions: (N, 7) float64, not finite where unusable."""

    stamp_ns: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """
    How an episode is resampled.

    pieces: for every piece without a gap the (M,) int64 places of its frames' observations, M at
    least 2. unusable: observations whose action is not finite. alone: observations with a gap on
    both sides.
    """

    pieces: Sequence[np.ndarray]
    unusable: int
    alone: int

    @property
    def frames(self) -> int:
        """How many frames all pieces have."""
        return sum(len(piece) for piece in self.pieces)

    @property
    def observations(self) -> np.ndarray:
        """(M,) int64 ascending, the places that pieces have."""
        return np.unique(np.concatenate([*self.pieces, np.empty(0, np.int64)]))


def plan_frames(episode: Observations, period_s: float) -> Plan:
    """
    Return which observations become frames that are `period_s` apart.

    Where more than MAX_PAUSE periods lie between two usable observations, the episode is cut.
    """
    usable = np.flatnonzero(np.isfinite(episode.actions).all(axis=1))
    stamps = episode.stamp_ns[usable]
    gaps = np.flatnonzero(np.diff(stamps) > MAX_PAUSE * period_s * 1e9) + 1
    runs = [run for run in np.split(usable, gaps) if len(run)]
    pieces = [run[_nearest(episode.stamp_ns[run], period_s * 1e9)] for run in runs]
    return Plan(
        pieces=tuple(piece for piece in pieces if len(piece) > 1),
        unusable=len(episode.stamp_ns) - len(usable),
        alone=sum(len(run) for run, piece in zip(runs, pieces, strict=True) if len(piece) == 1))


def _nearest(stamps: np.ndarray, period_ns: float) -> np.ndarray:
    """Return the places of the stamps nearest to the first one, a period later, and so on."""
    since = (stamps - stamps[0]).astype(np.float64)
    return nearest(since, period_ns * np.arange(round(since[-1] / period_ns) + 1))
