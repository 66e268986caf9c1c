"""
How far a policy's answers are from what was done, per dimension and for groups of them.

Every metric is a Tally, so that intervals over episodes and paired differences come by the same
way for all. Numbers that cannot be compared are left out, never counted as zero.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.evaluation.replay.events import EpisodeEvents
from vla_policy_node.evaluation.replay.events import OPEN_FROM
from vla_policy_node.evaluation.replay.intervals import ratio
from vla_policy_node.evaluation.replay.intervals import root
from vla_policy_node.evaluation.replay.intervals import Tally
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.evaluation.replay.settings import MetricSettings

TRANSLATION = slice(0, 3)
ROTATION = slice(3, 6)
GRIPPER = 6

_EACH = {name: (place,) for place, name in enumerate(DIM_NAMES)}
# Metres and radians do not add up: physical errors have no 'overall'.
PHYSICAL_GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {**_EACH, 'translation': (0, 1, 2), 'rotation': (3, 4, 5)})
GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {**PHYSICAL_GROUPS, 'overall': tuple(range(len(DIM_NAMES)))})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """
    Which numbers are compared, and in which episodes they lie.

    mask: (N, K, 7) bool. episodes: (E,) int64, the numbers of the episodes in which something
    is compared. row: (N,) int64, the place of a frame's episode among them, -1 for none.
    """

    replayed: Replayed
    mask: np.ndarray
    episodes: np.ndarray
    row: np.ndarray

    def by_episode(self, values: np.ndarray) -> np.ndarray:
        """Add up values (N, ...) per episode: (E, ...) float64."""
        sums = np.zeros((len(self.episodes), *values.shape[1:]))
        np.add.at(sums, self.row[self.row >= 0], values[self.row >= 0])
        return sums

    def step(self, place: int) -> 'Selection':
        """Return the same frames with one action of the chunk alone compared."""
        mask = np.zeros_like(self.mask)
        mask[:, place] = self.mask[:, place]
        return Selection(replayed=self.replayed, mask=mask, episodes=self.episodes, row=self.row)


def select(
    replayed: Replayed, mask: np.ndarray, episodes: np.ndarray | None = None,
) -> Selection:
    """
    Return the selection of `mask` (N, K, 7) bool.

    episodes: (E,) int64 ascending, where they are to be others than those the mask is in, so
    that several selections have the same.
    """
    if episodes is None:
        episodes = np.unique(replayed.episode[mask.any(axis=(1, 2))])
    row = np.searchsorted(episodes, replayed.episode)
    row = np.minimum(row, max(len(episodes) - 1, 0))
    known = episodes[row] == replayed.episode if len(episodes) else np.zeros(len(row), bool)
    return Selection(replayed=replayed, mask=mask, episodes=episodes,
                     row=np.where(known, row, -1))


def grouped(sums: np.ndarray, groups: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Add up sums per dimension (E, 7, P) to sums per group (E, G, P)."""
    return np.stack([sums[:, list(dims)].sum(axis=1) for dims in groups.values()], axis=1)


def token_hits(selection: Selection, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens are right within `distance` bins, and which exist: (N, K, 7) bool."""
    recorded, predicted = selection.replayed.recorded_bins, selection.replayed.predicted_bins
    mask = selection.mask & (recorded >= 0) & (predicted >= 0)
    return np.abs(recorded - predicted) <= distance, mask


def token_accuracy(selection: Selection, distance: int) -> Tally:
    """Return the share of tokens that are right within `distance` bins."""
    hits, mask = token_hits(selection, distance)
    return mean_tally(selection, hits, mask, GROUPS)


def mean_tally(
    selection: Selection, values: np.ndarray, mask: np.ndarray,
    groups: Mapping[str, Sequence[int]], finish: object = ratio,
) -> Tally:
    """Return the mean, or its root, of values (N, K, 7) where mask (N, K, 7) is True."""
    pairs = np.stack([np.where(mask, values, 0.0), mask], axis=-1).sum(axis=1)
    sums = grouped(selection.by_episode(pairs), groups)
    return Tally(names=tuple(groups), sums=sums, finish=finish, counts=_counted(sums))


def _counted(sums: np.ndarray) -> np.ndarray:
    return sums[..., 1].sum(axis=0).astype(np.int64)


def errors(selection: Selection) -> np.ndarray:
    """Return predicted less recorded, (N, K, 7) float64 in canonical units."""
    return selection.replayed.predicted - selection.replayed.recorded


def l1(selection: Selection) -> Tally:
    """Return the mean absolute error [m, rad, of the gripper's way]."""
    return mean_tally(selection, np.abs(errors(selection)), selection.mask, PHYSICAL_GROUPS)


def rmse(selection: Selection) -> Tally:
    """Return the root mean squared error [m, rad, of the gripper's way]."""
    return mean_tally(selection, errors(selection) ** 2, selection.mask, PHYSICAL_GROUPS, root)


def nrmse(selection: Selection) -> Tally:
    """Return the root mean squared error in units of `scale`; constant dimensions have none."""
    scaled, known = scaled_errors(errors(selection), selection.replayed.scale)
    return mean_tally(selection, scaled ** 2, selection.mask & known, GROUPS, root)


def scaled_errors(values: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values (..., 7) by `scale` (7,), and for which dimensions (7,) that exists."""
    known = np.isfinite(scale) & (scale > 0)
    return values / np.where(known, scale, 1.0), known


def direction_cosine(selection: Selection, settings: MetricSettings) -> Tally:
    """
    Return the mean cosine between predicted and recorded direction of translation and rotation.

    Only where all three numbers can be compared and both vectors are longer than the threshold.
    """
    parts = [_cosines(selection, dims, shortest) for dims, shortest in (
        (TRANSLATION, settings.min_translation_m), (ROTATION, settings.min_rotation_rad))]
    pairs = np.stack([np.stack([np.where(mask, cosine, 0.0), mask], axis=-1).sum(axis=1)
                      for cosine, mask in parts], axis=1)
    sums = selection.by_episode(pairs)
    return Tally(names=('translation', 'rotation'), sums=sums, finish=ratio,
                 counts=_counted(sums))


def _cosines(
    selection: Selection, dims: slice, shortest: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and where they are defined, both (N, K)."""
    recorded = selection.replayed.recorded[..., dims]
    predicted = selection.replayed.predicted[..., dims]
    lengths = [np.linalg.norm(vectors, axis=-1) for vectors in (recorded, predicted)]
    mask = selection.mask[..., dims].all(axis=-1)
    # A comparison with NaN is False.
    mask = mask & (lengths[0] > shortest) & (lengths[1] > shortest)
    product = np.where(mask, lengths[0] * lengths[1], 1.0)
    return (recorded * predicted).sum(axis=-1) / product, mask


def gripper_f1(selection: Selection) -> Tally:
    """
    Return the F1 score of 'closed' and of 'open', the gripper cut at 0.5.

    Not defined where that side is neither recorded nor predicted.
    """
    recorded = selection.replayed.recorded[..., GRIPPER] >= OPEN_FROM
    predicted = selection.replayed.predicted[..., GRIPPER] >= OPEN_FROM
    mask = selection.mask[..., GRIPPER]
    sides = []
    for wanted, found in ((~recorded, ~predicted), (recorded, predicted)):
        # F1 = 2 TP / (2 TP + FP + FN): both are sums.
        doubled = 2.0 * (mask & wanted & found)
        sides.append(np.stack([doubled, doubled + (mask & (wanted != found))], -1).sum(axis=1))
    sums = selection.by_episode(np.stack(sides, axis=1))
    counts = np.full(2, int(mask.sum()))
    return Tally(names=('closed', 'open'), sums=sums, finish=ratio, counts=counts)


def event_timing(events: Sequence[EpisodeEvents]) -> Tally:
    """Return the mean signed and absolute error of matched gripper events [s]."""
    sums = np.array([
        [[part.errors_s.sum(), len(part.errors_s)],
         [np.abs(part.errors_s).sum(), len(part.errors_s)]] for part in events]).reshape(-1, 2, 2)
    return Tally(names=('signed_s', 'absolute_s'), sums=sums, finish=ratio,
                 counts=_counted(sums))


def mean_latency(selection: Selection, mask: np.ndarray) -> Tally:
    """Return the mean latency [ms] of the frames of mask (N,) bool where it was measured."""
    latency = selection.replayed.latency_ms
    known = mask & np.isfinite(latency)
    pairs = np.stack([np.where(known, latency, 0.0), known], axis=-1)[:, None, :]
    sums = selection.by_episode(pairs)
    return Tally(names=('mean',), sums=sums, finish=ratio, counts=_counted(sums))


def action_tallies(selection: Selection, settings: MetricSettings) -> dict[str, Tally]:
    """
    Return every metric of actions by its key in summary.json, gripper events excepted.

    Keys: 'token_accuracy', 'within_<n>_bins', 'l1', 'rmse', 'nrmse', 'direction_cosine',
    'gripper_f1'.
    """
    return {
        'token_accuracy': token_accuracy(selection, 0),
        **{within_name(n): token_accuracy(selection, n) for n in settings.within_bins},
        'l1': l1(selection),
        'rmse': rmse(selection),
        'nrmse': nrmse(selection),
        'direction_cosine': direction_cosine(selection, settings),
        'gripper_f1': gripper_f1(selection),
    }


def within_name(distance: int) -> str:
    """Return the key of the share of tokens at most `distance` bins away."""
    return f'within_{distance}_bins'
