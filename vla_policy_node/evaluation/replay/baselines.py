"""
What would have been answered without looking: the baselines that stand beside a policy.

A policy that is not better than the previous action has learnt less than inertia.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vla_policy_node.evaluation.replay.results import NO_BIN
from vla_policy_node.evaluation.replay.results import Replayed

# Canonical actions (M, 7) float64, finite -> bins (M, 7) int64, as the checkpoint encodes them.
ToBins = Callable[[np.ndarray], np.ndarray]

BASELINE_NAMES = {
    'zero_action': 'zero action',
    'previous_action': 'previous action',
    'dataset_mean': 'dataset mean',
}


def baselines(replayed: Replayed, to_bins: ToBins | None) -> dict[str, Replayed]:
    """
    Return the baselines as if they had been replayed, by the keys of BASELINE_NAMES.

    zero_action: no motion, the gripper as it was in the period before. previous_action: what was
    done in the period before, again. dataset_mean: the mean action. Each is held through the
    chunk. A baseline has numbers only where the policy has some, so that both are measured on
    the same frames. Without `to_bins` they have no bins.
    """
    motionless = replayed.previous.copy()
    motionless[:, :6] = 0.0
    mean = np.tile(replayed.mean_action, (replayed.frames, 1))
    actions = {'zero_action': motionless, 'previous_action': replayed.previous,
               'dataset_mean': mean}
    return {name: _as_replayed(replayed, BASELINE_NAMES[name], values, to_bins)
            for name, values in actions.items()}


def _as_replayed(
    replayed: Replayed, name: str, actions: np.ndarray, to_bins: ToBins | None,
) -> Replayed:
    """Return `replayed` with (N, 7) other predictions, each held through the chunk."""
    bins = _bins(actions, to_bins)
    answered = np.isfinite(replayed.predicted)
    return replace(
        replayed, name=name, timing_ms={}, live=None,
        predicted=np.where(answered, actions[:, None, :], np.nan),
        predicted_bins=np.where(answered, bins[:, None, :], NO_BIN),
        confidence=np.full_like(replayed.confidence, np.nan),
        latency_ms=np.full_like(replayed.latency_ms, np.nan))


def _bins(actions: np.ndarray, to_bins: ToBins | None) -> np.ndarray:
    if to_bins is None or not len(actions):
        return np.full(actions.shape, NO_BIN, np.int64)
    known = np.isfinite(actions)
    return np.where(known, to_bins(np.where(known, actions, 0.0)), NO_BIN)
