"""Whether a quantity grows with time, told from its noise."""

from collections.abc import Sequence
import itertools

import numpy as np

_BLOCKS = 24


def slope_per_hour(times_s: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """
    Return the slope of a series [1/h] and its standard error.

    The median of the slopes between the medians of 24 blocks: neither outliers nor the time of
    a single step decide. The error is that of leaving out one block after the other.

    :raises ValueError: fewer values than blocks.
    """
    if len(values) < _BLOCKS:
        raise ValueError(f'expected at least {_BLOCKS} values, found {len(values)}')
    hours = np.array([np.median(block) for block in np.array_split(times_s, _BLOCKS)]) / 3600.0
    medians = np.array([np.median(block) for block in np.array_split(values, _BLOCKS)])
    without_one = np.array([
        _median_slope(np.delete(hours, i), np.delete(medians, i)) for i in range(_BLOCKS)])
    spread = float(np.sum((without_one - without_one.mean()) ** 2))
    return _median_slope(hours, medians), (spread * (_BLOCKS - 1) / _BLOCKS) ** 0.5


def _median_slope(x: np.ndarray, y: np.ndarray) -> float:
    pairs = itertools.combinations(range(len(x)), 2)
    return float(np.median([(y[j] - y[i]) / (x[j] - x[i]) for i, j in pairs]))


def quarters(values: Sequence[float]) -> list[np.ndarray]:
    """Return the four quarters of a series."""
    return np.array_split(np.array(values, np.float64), 4)


def change(first: float, last: float) -> float:
    """Return by which fraction the last is above the first, negative where below."""
    return last / first - 1.0
