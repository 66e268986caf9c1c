"""Whether a policy's confidence is how often it is right."""

from functools import partial

import numpy as np

from vla_policy_node.evaluation.replay.intervals import Tally
from vla_policy_node.evaluation.replay.metrics import grouped
from vla_policy_node.evaluation.replay.metrics import GROUPS
from vla_policy_node.evaluation.replay.metrics import Selection
from vla_policy_node.evaluation.replay.metrics import token_hits


def calibration_tally(selection: Selection, distance: int, bins: int) -> Tally:
    """
    Return the expected calibration error per dimension and group.

    A token is right within `distance` bins. Confidences are sorted into `bins` equal parts of
    [0, 1]; the error is the mean distance between confidence and share of right tokens in a
    part, weighted by the tokens in it.
    """
    hits, mask = token_hits(selection, distance)
    confidence = selection.replayed.confidence.astype(np.float64)
    mask = mask & np.isfinite(confidence)
    part = np.minimum((np.where(mask, confidence, 0.0) * bins).astype(np.int64), bins - 1)
    summed = [selection.by_episode(_chunk_sums(np.where(mask & (part == place), values, 0.0)))
              for place in range(bins) for values in (confidence, hits, np.ones(hits.shape))]
    sums = grouped(np.stack(summed, axis=-1), GROUPS)
    return Tally(names=tuple(GROUPS), sums=sums, finish=partial(_error, bins=bins),
                 counts=sums.reshape(*sums.shape[:2], bins, 3)[..., 2].sum((0, 2)).astype(int))


def _chunk_sums(values: np.ndarray) -> np.ndarray:
    return values.sum(axis=1)


def _error(totals: np.ndarray, bins: int) -> np.ndarray:
    confidence, hits, counts = np.moveaxis(totals.reshape(*totals.shape[:-1], bins, 3), -1, 0)
    everything = counts.sum(axis=-1)
    with np.errstate(invalid='ignore'):
        return np.where(everything > 0, np.abs(confidence - hits).sum(axis=-1) / everything,
                        np.nan)


def reliability(tally: Tally, group: str, bins: int) -> list[dict[str, object]]:
    """
    Return the parts of a reliability diagram of a tally of `calibration_tally`.

    Each: 'low', 'high' of the part of [0, 1], 'count', and where that is not 0 the mean
    'confidence' and the share of right tokens 'right', otherwise None.
    """
    totals = tally.sums.sum(axis=0)[tally.names.index(group)].reshape(bins, 3)
    return [{
        'low': place / bins, 'high': (place + 1) / bins, 'count': int(count),
        'confidence': confidence / count if count else None,
        'right': right / count if count else None,
    } for place, (confidence, right, count) in enumerate(totals.tolist())]
