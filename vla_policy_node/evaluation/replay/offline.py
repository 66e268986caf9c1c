"""
Every chosen frame through a policy, as fast as the policy goes and always with the same result.

Knows policies and recordings by what they answer; knows nothing of files, checkpoints or ROS.
"""

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from vla_policy_node.evaluation.replay.read_ahead import ReadAhead
from vla_policy_node.evaluation.replay.rows import ActionConventions
from vla_policy_node.evaluation.replay.rows import replayed_rows
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import Observation
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedEpisode
from vla_policy_node.recorded import RecordedFrame
from vla_policy_node.recordings import RecordingError

# Decoded pictures that wait for the policy: enough to hide a slow disk, few enough to be small.
_FRAMES_AHEAD = 4


class ReplayedPolicy(ActionConventions, Protocol):
    """What is needed of a policy."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the next actions; DecodeError where the model's output is none."""


def run_offline(
    policy: ReplayedPolicy, bags: RecordedBags, *, name: str,
    on_frame: Callable[[int], None] = lambda done: None,
) -> ReplayRun:
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

    def finished(self, name: str, **times_s: float) -> ReplayRun:
        """Return all rows."""
        return ReplayRun(
            replayed=replayed_rows(
                self._policy, name, self._frames, self._answers, latency_ms=self._latency_ms),
            frames=self._frames, answers=self._answers, failures=self._failures, **times_s)


def _observation(frame: RecordedFrame) -> Observation:
    return Observation(images=frame.images, instruction=frame.episode.instruction)


def _warm_up(policy: ReplayedPolicy, frame: RecordedFrame) -> None:
    try:
        policy.infer(_observation(frame))
    except DecodeError:
        return      # counted when the frame's turn comes
