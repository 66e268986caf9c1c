"""
Every chosen frame through a policy, as fast as the policy goes and always with the same result.

Knows policies and recordings by what they answer; knows nothing of files, checkpoints or ROS.
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.evaluation.replay.bins import ActionBins
from vla_policy_node.evaluation.replay.read_ahead import ReadAhead
from vla_policy_node.evaluation.replay.results import NO_BIN
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import Observation
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedEpisode
from vla_policy_node.recorded import RecordedFrame
from vla_policy_node.recordings import RecordingError

# Decoded pictures that wait for the policy: enough to hide a slow disk, few enough to be small.
_FRAMES_AHEAD = 4


class ReplayedPolicy(Protocol):
    """What is needed of a policy."""

    action_space: ActionSpace
    action_tokenizer: ActionTokenizer

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the next actions; DecodeError where the model's output is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OfflineRun:
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


def run_offline(
    policy: ReplayedPolicy, bags: RecordedBags, *, name: str,
    on_frame: Callable[[int], None] = lambda done: None,
) -> OfflineRun:
    """
    Show every frame of `bags` to a policy.

    name: of the policy, for tables. on_frame: told how many frames are done. The first frame is
    shown once more before anything is measured, because a first inference is slower.
    Raises RecordingError where no picture can be decoded, and what infer raises except
    DecodeError.
    """
    rows = _Rows(policy)
    start = perf_counter()
    with ReadAhead(bags.frames(), _FRAMES_AHEAD) as ahead:
        for frame in ahead:
            if not len(rows):
                _warm_up(policy, frame)
                start = perf_counter()
            rows.add(frame)
            on_frame(len(rows))
    if not len(rows):
        reasons = ', '.join(bags.skipped) or 'no frame'
        raise RecordingError(f'expected frames to show to the policy, found none that can be '
                             f'decoded: {reasons}; record the cameras again')
    return rows.finished(name, wall_s=perf_counter() - start, reading_s=ahead.busy_s,
                         waited_s=ahead.waited_s)


class _Rows:
    """Asks a policy about frames and collects the answers."""

    def __init__(self, policy: ReplayedPolicy) -> None:
        self._policy = policy
        self._bins = ActionBins(policy.action_space, policy.action_tokenizer)
        self._frames: list[tuple[RecordedEpisode, int]] = []
        self._answers: list[ActionChunk | None] = []
        self._latency_ms: list[float] = []
        self._failures: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: RecordedFrame) -> None:
        """Ask about one frame; a failed decoding is a row without an answer."""
        observation = _observation(frame)
        start = perf_counter()
        try:
            answer = self._policy.infer(observation)
        except DecodeError as error:
            answer = None
            self._failures[str(error)] += 1
        self._latency_ms.append(1e3 * (perf_counter() - start))
        self._frames.append((frame.episode, frame.step))
        self._answers.append(answer)

    def finished(self, name: str, **times_s: float) -> OfflineRun:
        """Return all rows."""
        space, tokenizer = self._policy.action_space, self._policy.action_tokenizer
        recorded = self._recorded(tokenizer.horizon)
        nothing = np.full((tokenizer.horizon, ACTION_DIM), np.nan)
        answers = self._answers
        replayed = Replayed(
            name=name,
            episode=np.array([episode.number for episode, _ in self._frames], np.int64),
            stamp_ns=np.array([episode.stamp_ns[step] for episode, step in self._frames],
                              np.int64),
            recorded=recorded,
            previous=_stacked([episode.previous[step] for episode, step in self._frames],
                              (ACTION_DIM,)),
            predicted=_stacked([nothing if answer is None else answer.actions
                                for answer in answers], nothing.shape),
            recorded_bins=self._bins.of_actions(recorded),
            predicted_bins=_stacked([
                np.full(nothing.shape, NO_BIN) if answer is None
                else self._bins.of_tokens(answer.all_token_ids) for answer in answers],
                nothing.shape, np.int64),
            confidence=_stacked([nothing if answer is None else answer.confidence
                                 for answer in answers], nothing.shape, np.float32),
            latency_ms=np.array(self._latency_ms),
            timing_ms=_timing(answers),
            scale=space.stats.q99 - space.stats.q01,
            mean_action=_mean_action(space, recorded))
        return OfflineRun(replayed=replayed, frames=self._frames, answers=answers,
                          failures=self._failures, **times_s)

    def _recorded(self, horizon: int) -> np.ndarray:
        chunks: dict[int, np.ndarray] = {}
        for episode, _ in self._frames:
            if episode.number not in chunks:
                chunks[episode.number] = episode.chunks(horizon)
        return _stacked([chunks[episode.number][step] for episode, step in self._frames],
                        (horizon, ACTION_DIM))


def _observation(frame: RecordedFrame) -> Observation:
    return Observation(images=frame.images, instruction=frame.episode.instruction)


def _warm_up(policy: ReplayedPolicy, frame: RecordedFrame) -> None:
    try:
        policy.infer(_observation(frame))
    except DecodeError:
        return      # counted when the frame's turn comes


def _timing(answers: Sequence[ActionChunk | None]) -> dict[str, np.ndarray]:
    """Return part -> (N,) float64 ms, NaN where decoding failed."""
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
