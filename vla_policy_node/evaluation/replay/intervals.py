"""
Bootstrap intervals over whole episodes, for metrics that are functions of sums.

Frames of one episode resemble each other, so resampling frames would promise too much.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """
    A metric as sums over episodes.

    names: G names of what the metric is given for. sums: (E, G, P) float64, what each episode
    adds. finish: (..., G, P) totals over some episodes -> (..., G) float64, NaN where nothing
    was counted. counts: (G,) int64, comparisons behind each name.
    """

    names: Sequence[str]
    sums: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]
    counts: np.ndarray

    def value(self) -> np.ndarray:
        """Return the metric over all episodes, (G,) float64."""
        return self.finish(self.sums.sum(axis=0))

    def per_episode(self) -> np.ndarray:
        """Return the metric of each episode alone, (E, G) float64."""
        return self.finish(self.sums)

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """Return the metric of each resample, (B, G) float64; weights as of `resample`."""
        return self.finish(np.tensordot(weights, self.sums, axes=1))


def ratio(totals: np.ndarray) -> np.ndarray:
    """Return the first of two sums (..., 2) by the second, NaN where that is 0."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(totals[..., 1] > 0, totals[..., 0] / totals[..., 1], np.nan)


def root(totals: np.ndarray) -> np.ndarray:
    """Return the square root of `ratio`: of sums of squares and counts, the RMS."""
    return np.sqrt(ratio(totals))


def resample(episodes: int, *, samples: int, seed: int) -> np.ndarray | None:
    """
    Return how often each resample drew each episode, (samples, episodes) float64.

    None with fewer than two episodes: how much episodes differ is then not known.
    """
    if episodes < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=samples)
    return drawn.astype(np.float64)


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the percentile interval (low, high), each (G,), of resampled values (B, G).

    Resamples in which the metric is not defined are left out; NaN where it never is.
    """
    tail = (1 - LEVEL) / 2
    defined = np.isfinite(resampled).any(axis=0)
    # nanquantile warns about columns without a number.
    bounds = np.nanquantile(np.where(defined, resampled, 0.0), (tail, 1 - tail), axis=0)
    low, high = np.where(defined, bounds, np.nan)
    return low, high


def estimates(tally: Tally, weights: np.ndarray | None) -> dict[str, dict[str, object]]:
    """
    Return {name: {'value', 'interval_95', 'count'}} of a metric.

    weights: as of `resample`; without them 'interval_95' is None everywhere.
    """
    values = tally.value()
    bounds = None if weights is None else interval(tally.resampled(weights))
    return {
        name: {'value': float(values[place]), 'interval_95': bounds_at(bounds, place),
               'count': int(tally.counts[place])}
        for place, name in enumerate(tally.names)}


def bounds_at(
    bounds: tuple[np.ndarray, np.ndarray] | None, place: int,
) -> list[float] | None:
    """Return [low, high] of one name, None where there is no interval."""
    if bounds is None or not np.isfinite(bounds[0][place]):
        return None
    return [float(bounds[0][place]), float(bounds[1][place])]
