"""Logits no sane model gives: not finite, at the ends of their type, tied, or misplaced."""

from collections.abc import Callable
import math

import numpy as np
import torch

from faults.parts.token_schemes import VOCABULARY

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# More than numbers written digit by digit ask for.
N_ROWS = 32


def draw(
    rng: np.random.Generator, n_rows: int, legal: np.ndarray, dtype: torch.dtype,
) -> tuple[str, torch.Tensor]:
    """
    Return the kind of fault and (n_rows, V) logits.

    :param legal: (m,) int64, ids that are legal somewhere.
    """
    rows = rng.standard_normal((n_rows, VOCABULARY), np.float32)
    rows *= 10.0 ** rng.uniform(-3.0, 3.0)
    kind = _NAMES[rng.integers(len(_NAMES))]
    _KINDS[kind](rng, rows, legal, float(torch.finfo(dtype).max))
    logits = torch.from_numpy(rows).to(dtype)
    return f'{kind}, {dtype}', logits


def _sprinkle(number: float) -> Callable[..., None]:
    """Return what puts a number into few places of a row, legal or not."""
    def spoil(rng, rows, legal, largest):
        row = rows[rng.integers(len(rows))]
        ids = legal if rng.integers(2) else np.setdiff1d(np.arange(VOCABULARY), legal)
        row[ids[rng.integers(len(ids), size=int(rng.integers(1, 4)))]] = number
    return spoil


def _fill(number: float) -> Callable[..., None]:
    def spoil(rng, rows, legal, largest):
        rows[rng.integers(len(rows))] = number
    return spoil


def _all_legal_minus_infinite(rng, rows, legal, largest):
    rows[rng.integers(len(rows)), legal] = -np.inf


def _illegal_wins(rng, rows, legal, largest):
    rows[:] = largest
    rows[:, legal] = rng.uniform(-1.0, 1.0, (len(rows), len(legal))) * largest


def _infinite_illegal_wins(rng, rows, legal, largest):
    kept = rows[:, legal]
    rows[:] = (np.inf, np.nan)[rng.integers(2)]
    rows[:, legal] = kept


def _ties(rng, rows, legal, largest):
    rows[:] = np.rint(np.clip(rows, -1e6, 1e6) / (1.0 + np.abs(rows).max()))
    if rng.integers(2):
        rows[:] = (0.0, -0.0, largest, -largest)[rng.integers(4)]


def _extremes(rng, rows, legal, largest):
    levels = np.array([largest, -largest, 0.0, -0.0, 1e-45, -1e-45, largest / 2], np.float32)
    rows[:] = levels[rng.integers(len(levels), size=rows.shape)]


def _huge(rng, rows, legal, largest):
    # Beyond what the smaller types hold they become infinite.
    rows[:] = rng.uniform(-1e38, 1e38, rows.shape)


def _nothing(rng, rows, legal, largest):
    pass


_KINDS = {
    'nan': _sprinkle(math.nan), 'inf': _sprinkle(math.inf), '-inf': _sprinkle(-math.inf),
    'all nan': _fill(math.nan), 'all inf': _fill(math.inf), 'all -inf': _fill(-math.inf),
    'all legal -inf': _all_legal_minus_infinite, 'illegal wins': _illegal_wins,
    'infinite illegal wins': _infinite_illegal_wins, 'ties': _ties, 'extremes': _extremes,
    '1e38': _huge, 'ordinary': _nothing,
}
_NAMES = tuple(_KINDS)
