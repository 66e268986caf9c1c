"""Frames and what a policy answered to them, as the arrays that are measured."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.evaluation.replay.bins import ActionBins
from vla_policy_node.evaluation.replay.results import NO_BIN
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.policy import ActionChunk
from vla_policy_node.recorded import RecordedEpisode


class ActionConventions(Protocol):
    """What of a policy says how its answers are read."""

    action_space: ActionSpace
    action_tokenizer: ActionTokenizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayRun:
    """
    What a policy answered to all frames.

    frames: N times which episode and step a row of `replayed` is. answers: N times what the
    policy answered, None where decoding failed. failures: why that was -> how often. wall_s: of
    the whole run. reading_s: spent on reading and decoding pictures, beside the policy. waited_s:
    that the policy waited for them.
    """

    replayed: Replayed
    frames: Sequence[tuple[RecordedEpisode, int]]
    answers: Sequence[ActionChunk | None]
    failures: Counter[str]
    wall_s: float
    reading_s: float
    waited_s: float

    @property
    def received_ns(self) -> np.ndarray:
        """(N,) int64, when the frames were received while recording."""
        return np.array([episode.received_ns[step] for episode, step in self.frames], np.int64)


def replayed_rows(
    policy: ActionConventions, name: str, frames: Sequence[tuple[RecordedEpisode, int]],
    answers: Sequence[ActionChunk | None], latency_ms: Sequence[float],
    live: Mapping[str, object] | None = None,
) -> Replayed:
    """
    Return N frames, each an episode and a step of it, beside their answers.

    answers: None where decoding failed. latency_ms: of each inference.
    """
    space, horizon = policy.action_space, policy.action_tokenizer.horizon
    bins = ActionBins(space, policy.action_tokenizer)
    recorded = _recorded(frames, horizon)
    nothing = np.full((horizon, ACTION_DIM), np.nan)
    no_bins = np.full((horizon, ACTION_DIM), NO_BIN)
    return Replayed(
        name=name,
        episode=np.array([episode.number for episode, _ in frames], np.int64),
        stamp_ns=np.array([episode.stamp_ns[step] for episode, step in frames], np.int64),
        recorded=recorded,
        previous=_stacked([episode.previous[step] for episode, step in frames], (ACTION_DIM,)),
        predicted=_stacked([nothing if answer is None else answer.actions for answer in answers],
                           nothing.shape),
        recorded_bins=bins.of_actions(recorded),
        predicted_bins=_stacked([
            no_bins if answer is None else bins.of_tokens(answer.all_token_ids)
            for answer in answers], no_bins.shape, np.int64),
        confidence=_stacked([nothing if answer is None else answer.confidence
                             for answer in answers], nothing.shape, np.float32),
        latency_ms=np.array(latency_ms, np.float64),
        timing_ms=_timing(answers),
        scale=space.stats.q99 - space.stats.q01,
        mean_action=_mean_action(space, recorded),
        live=live)


def _recorded(frames: Sequence[tuple[RecordedEpisode, int]], horizon: int) -> np.ndarray:
    chunks: dict[int, np.ndarray] = {}
    for episode, _ in frames:
        if episode.number not in chunks:
            chunks[episode.number] = episode.chunks(horizon)
    return _stacked([chunks[episode.number][step] for episode, step in frames],
                    (horizon, ACTION_DIM))


def _timing(answers: Sequence[ActionChunk | None]) -> dict[str, np.ndarray]:
    """Return part -> (N,) float64 ms, NaN where it is not known."""
    parts = dict.fromkeys(part for answer in answers if answer for part in answer.timing_ms)
    return {part: np.array([answer.timing_ms.get(part, np.nan) if answer else np.nan
                            for answer in answers]) for part in parts}


def _mean_action(space: ActionSpace, recorded: np.ndarray) -> np.ndarray:
    """Return the (7,) canonical mean of the checkpoint's data, else of the recording."""
    mean = space.stats.extra.get('mean')
    if mean is not None:
        return space.to_canonical(np.array([mean]))[0]
    first = recorded[:, 0]
    known = first[np.isfinite(first).all(axis=1)]
    return known.mean(axis=0) if len(known) else np.zeros(ACTION_DIM)


def _stacked(rows: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type = np.float64,
             ) -> np.ndarray:
    """Return rows of one shape as an array (N, *shape), also if there are none."""
    return np.array(rows, dtype).reshape(len(rows), *shape)
