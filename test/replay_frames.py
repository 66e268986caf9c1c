"""Replayed frames for the tests of their metrics: small, with literal defaults."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vla_policy_node.evaluation.replay.results import Replayed

PERIOD_NS = 200_000_000
# One bin of the tests is this much in every dimension.
BIN = 0.01


def to_bins(actions: np.ndarray) -> np.ndarray:
    """Encode actions (..., 7) as bins of BIN around zero, clipped at the ends, -1 for NaN."""
    known = np.isfinite(actions)
    bins = np.clip(np.round(np.where(known, actions, 0.0) / BIN) + 127, 0, 255)
    return np.where(known, bins, -1).astype(np.int64)


def replayed(
    recorded: np.ndarray, predicted: np.ndarray, *, episode: Sequence[int] | None = None,
    **changes: object,
) -> Replayed:
    """
    Return frames of recorded and predicted actions, (N, 7) or (N, K, 7), one period apart.

    episode: (N,), all of episode 0 by default. Scale 1, mean 0, confidence 1, latency 100 ms.
    """
    recorded, predicted = (
        np.asarray(part, np.float64).reshape(len(part), -1, 7) for part in (recorded, predicted))
    frames = len(recorded)
    number = np.zeros(frames, np.int64) if episode is None else np.asarray(episode, np.int64)
    first = recorded[:, 0]
    previous = np.full((frames, 7), np.nan)
    follows = number[1:] == number[:-1]
    previous[1:][follows] = first[:-1][follows]
    return replace(Replayed(
        name='policy', episode=number, stamp_ns=np.arange(frames, dtype=np.int64) * PERIOD_NS,
        recorded=recorded, previous=previous, predicted=predicted,
        recorded_bins=to_bins(recorded), predicted_bins=to_bins(predicted),
        confidence=np.where(np.isfinite(predicted), 1.0, np.nan).astype(np.float32),
        latency_ms=np.full(frames, 100.0), scale=np.ones(7), mean_action=np.zeros(7)), **changes)


def wandering(
    episodes: int = 3, frames: int = 12, horizon: int = 1, seed: int = 0, error: float = 0.05,
    recorded_seed: int = 0,
) -> Replayed:
    """Return episodes of random motion and a policy that is off by a random `error`."""
    made = np.random.default_rng(recorded_seed)
    drawn = np.random.default_rng(seed + 100)
    recorded = made.uniform(-0.5, 0.5, (episodes * frames, horizon, 7))
    recorded[..., 6] = recorded[..., 6] > 0
    predicted = recorded + drawn.normal(0.0, error, recorded.shape)
    predicted[..., 6] = np.where(drawn.random(recorded.shape[:2]) < 0.1,
                                 1 - recorded[..., 6], recorded[..., 6])
    confidence = drawn.uniform(0.05, 1.0, recorded.shape).astype(np.float32)
    return replayed(recorded, predicted, episode=np.repeat(np.arange(episodes), frames),
                    confidence=confidence, latency_ms=drawn.uniform(50, 150, episodes * frames),
                    timing_ms={'decode': drawn.uniform(20, 40, episodes * frames)})


def taken(source: Replayed, rows: Sequence[int] | np.ndarray) -> Replayed:
    """Return the frames `rows` in that order."""
    arrays = {name: getattr(source, name)[rows] for name in (
        'episode', 'stamp_ns', 'recorded', 'previous', 'predicted', 'recorded_bins',
        'predicted_bins', 'confidence', 'latency_ms')}
    timing = {part: values[rows] for part, values in source.timing_ms.items()}
    return replace(source, **arrays, timing_ms=timing)
