"""
Statistics of a data set's columns in LeRobot's form: min, max, mean, std, count and quantiles.

Of numbers all are looked at, of pictures every n-th pixel of every frame. Quantiles are those of
the values, also over several episodes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_QUANTILES = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}
# Pixels of a picture's longer side that are looked at, about.
_SIDE = 160

Statistics = dict[str, Any]


def of_numbers(column: np.ndarray) -> Statistics:
    """Return the statistics of (N, D) numbers, each a list of D floats; count is [N]."""
    values = column.astype(np.float64)
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return {
        'min': values.min(0).tolist(), 'max': values.max(0).tolist(),
        'mean': values.mean(0).tolist(), 'std': values.std(0).tolist(), 'count': [len(values)],
        **{name: row.tolist() for name, row in zip(_QUANTILES, quantiles, strict=True)}}


class PictureStatistics:
    """How often each of the 256 values occurs in each colour of some pictures."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """Count an (H, W, 3) uint8 picture."""
        every = max(1, max(picture.shape[:2]) // _SIDE)
        some = picture[::every, ::every]
        for colour, counts in enumerate(self._counts):
            counts += np.bincount(some[..., colour].ravel(), minlength=256)
        self._pictures += 1

    def include(self, other: 'PictureStatistics') -> None:
        """Count the pictures of another one too."""
        self._counts += other._counts
        self._pictures += other._pictures

    def result(self) -> Statistics:
        """Return the statistics of values from 0 to 1, each of shape (3, 1, 1); count is [N]."""
        values = np.arange(256) / 255.0
        shares = self._counts / self._counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        reached = np.cumsum(shares, axis=1)
        seen = self._counts > 0
        columns = {
            'min': values[seen.argmax(axis=1)], 'max': values[255 - seen[:, ::-1].argmax(axis=1)],
            'mean': mean, 'std': np.sqrt(np.maximum(shares @ values ** 2 - mean ** 2, 0.0)),
            **{name: values[(reached < share - 1e-12).sum(axis=1)]
               for name, share in _QUANTILES.items()}}
        return {name: column.reshape(3, 1, 1).tolist() for name, column in columns.items()} | {
            'count': [self._pictures]}


def flattened(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """Return {'stats/<feature>/<name>': value}, as an episode's row holds them."""
    return {f'stats/{feature}/{name}': value
            for feature, values in statistics.items() for name, value in values.items()}
