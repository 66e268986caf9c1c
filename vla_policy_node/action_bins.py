"""
Cutting [-1, 1] into 256 bins, in the three published ways.

A bin number is 0..255, ascending with the value. Knows nothing of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

N_BINS = 256

# A value written as exactly one of RT-1's levels must not fall to the level below by rounding.
_LEVEL_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantizer:
    """
    One way to cut [-1, 1].

    values: (256,) float64, the value each bin decodes to, read-only, ascending.
    max_error: largest |decoded - value| for a value in [-1, 1].
    """

    name: str
    values: np.ndarray
    max_error: float
    index: Callable[[np.ndarray], np.ndarray]

    def encode(self, values: np.ndarray) -> np.ndarray:
        """
        Return bin numbers, int64 of the same shape; values beyond [-1, 1] are clipped.

        Raises ValueError for NaN and infinities: those are faults, not large motions.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            odd = values[~np.isfinite(values)][0]
            raise ValueError(f'cannot encode an action: expected finite numbers, found {odd}; '
                             'repair the source of the action')
        return self.index(np.clip(values, -1.0, 1.0)).astype(np.int64)


def _read_only(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values


_EDGES = np.linspace(-1.0, 1.0, N_BINS)
_CENTRES = (_EDGES[:-1] + _EDGES[1:]) / 2.0


# Functions with names, because loaders pickle tokenizers into their workers.
def _even_index(values: np.ndarray) -> np.ndarray:
    return np.minimum(np.floor((values + 1.0) * (N_BINS / 2.0)), N_BINS - 1)


def _openvla_index(values: np.ndarray) -> np.ndarray:
    return np.digitize(values, _EDGES) - 1


def _level_index(values: np.ndarray) -> np.ndarray:
    return np.minimum(
        np.floor((values + 1.0) / 2.0 * (N_BINS - 1) + _LEVEL_SLACK), N_BINS - 1)


# RT-2: "cut evenly into 256 bins", decoded at their centres. Zero lies on an edge.
EVEN_BINS = Quantizer(
    name='even',
    values=_read_only((np.arange(N_BINS) + 0.5) * 2.0 / N_BINS - 1.0),
    max_error=1.0 / N_BINS,
    index=_even_index,
)

# OpenVLA: 256 edges make 255 intervals; the 256th bin is hit by exactly 1.0 only and shares the
# last centre. Zero is a centre, and +-1 is never reached again.
OPENVLA_BINS = Quantizer(
    name='openvla',
    values=_read_only(np.append(_CENTRES, _CENTRES[-1])),
    max_error=1.0 / (N_BINS - 1),
    index=_openvla_index,
)

# RT-1: 256 levels with both ends exact, and truncation as published: the decoded value is never
# above the given one and up to a whole level below it, not half of one.
RT1_LEVELS = Quantizer(
    name='rt1',
    values=_read_only(np.arange(N_BINS) / (N_BINS - 1) * 2.0 - 1.0),
    max_error=2.0 / (N_BINS - 1),
    index=_level_index,
)
