"""From the chunks and instructions of one bag to the steps that were carried out."""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_policy_node.recordings import CHUNK_TYPE
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import RecordedChunk
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import TopicIndex
from vla_policy_node.training.sources.config import BagsSection
from vla_policy_node.training.sources.records import SourceError

_STATUS_TYPE = 'vla_msgs/msg/PolicyStatus'
_STRING_TYPE = 'std_msgs/msg/String'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BagSteps:
    """
    The M steps of one bag, in order.

    actions: (M, 7) float64 canonical, NaN where the chunk was not finite. seen_ns: (M,) int64,
    pictures are not newer. pictures: (M, C) int64, place of the picture in each camera's topic,
    -1 where there is none. chunk: (M,) int64, place of the chunk in its topic. episodes: (M,)
    int64 from 0 on. word: (M, 2) int64, instruction and plan as places in `words`.
    """

    actions: np.ndarray
    seen_ns: np.ndarray
    pictures: np.ndarray
    chunk: np.ndarray
    episodes: np.ndarray
    word: np.ndarray
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def episode_count(self) -> int:
        """How many episodes the bag has."""
        return int(self.episodes[-1]) + 1 if len(self) else 0

    @property
    def is_told(self) -> bool:
        """Whether any step has an instruction."""
        return any(self.words[word].strip() for word in np.unique(self.word[:, 0]))

    def instruction(self, step: int) -> str:
        """Return what the robot was told at a step; '' where nothing was recorded."""
        return self.words[self.word[step, 0]]

    def plan(self, step: int) -> str:
        """Return what the policy said it would do at a step."""
        return self.words[self.word[step, 1]]


def read_bag_steps(
    recording: Recording, section: BagsSection, name: str, period_s: float,
) -> BagSteps:
    """
    Read all chunks of a bag, and index its pictures in the same pass.

    Raises RecordingError for missing topics, SourceError for chunks of another period.
    """
    recording.require(section.actions, (CHUNK_TYPE,))
    told = _Told(recording, section)
    index, *cameras = recording.index(section.actions, *section.cameras.values())
    rows = _Rows()
    received = index.received_ns
    for place, recorded in enumerate(recording.messages(section.actions)):
        chunk = read_chunk(recorded)
        _check_period(chunk, period_s, f'{name}: {recording.path}, chunk {place}')
        gap_s = (received[place + 1] - received[place]) * 1e-9 if place + 1 < len(received) else 0
        rows.add(place, chunk, told.at(int(received[place])), int(received[place]), gap_s)
        if gap_s > section.max_gap_s:
            rows.end_episode()
    return rows.finished(cameras)


class _Rows:
    """Collects steps; a new episode begins where the instruction changes."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []
        self._words: dict[str, int] = {}
        self._episode = 0
        self._instruction: str | None = None

    def add(
        self, place: int, chunk: RecordedChunk, instruction: str, received_ns: int, gap_s: float,
    ) -> None:
        """Take the steps of a chunk that was replaced after `gap_s`, 0 if never."""
        if instruction != self._instruction and self._instruction is not None:
            self.end_episode()
        self._instruction = instruction
        words = [self._words.setdefault(text, len(self._words))
                 for text in (instruction, chunk.plan)]
        for step in range(_carried_out(chunk, gap_s)):
            seen_ns = (chunk.observation_ns or received_ns) + round(step * chunk.period_s * 1e9)
            action = chunk.actions[step].copy()
            if chunk.terminate[step]:
                action[:6] = 0.0    # the controller does not move on such a step
            self._rows.append((action, seen_ns, place, self._episode, words))
            if chunk.terminate[step]:
                self.end_episode()
                break

    def end_episode(self) -> None:
        """Let the next step begin another episode."""
        if self._rows and self._rows[-1][3] == self._episode:
            self._episode += 1
        self._instruction = None

    def finished(self, cameras: Sequence[TopicIndex]) -> BagSteps:
        """Return what was collected, with the newest picture of every camera."""
        actions, seen_ns, chunk, episodes, word = (
            zip(*self._rows, strict=True) if self._rows else ((),) * 5)
        seen_ns = np.array(seen_ns, np.int64)
        return BagSteps(
            actions=_canonical(np.array(actions, np.float64).reshape(-1, 7)), seen_ns=seen_ns,
            pictures=np.stack([camera.newest_at(seen_ns) for camera in cameras], axis=1),
            chunk=np.array(chunk, np.int64),
            episodes=np.array(episodes, np.int64),
            word=np.array(word, np.int64).reshape(-1, 2), words=tuple(self._words))


class _Told:
    """Which instruction held when a chunk came."""

    def __init__(self, recording: Recording, section: BagsSection) -> None:
        self._times, self._texts, self._after = np.zeros(0, np.int64), [], False
        if section.instruction is not None:
            return
        topic = recording.require(section.instruction_topic, (_STATUS_TYPE, _STRING_TYPE))
        # The policy sends its status behind each chunk; words are said before the robot moves.
        self._after = topic.type == _STATUS_TYPE
        said = list(_said(recording, topic.name))
        self._times = np.array([when for when, _ in said], np.int64)
        self._texts = [text for _, text in said]

    def at(self, time_ns: int) -> str:
        """Return the instruction that a chunk received then was made for; '' before any."""
        place = int(np.searchsorted(
            self._times, time_ns, side='left' if self._after else 'right'))
        if not self._after or place == len(self._texts):
            place -= 1
        return self._texts[place] if place >= 0 else ''


def _said(recording: Recording, topic: str) -> Iterator[tuple[int, str]]:
    for recorded in recording.messages(topic):
        message = recorded.message
        yield recorded.received_ns, getattr(message, 'instruction', None) or getattr(
            message, 'data', '')


def _carried_out(chunk: RecordedChunk, gap_s: float) -> int:
    """Return how many steps of a chunk began before the next one came; all if none came."""
    count = len(chunk.actions)
    return count if gap_s == 0 else min(count, max(1, round(gap_s / chunk.period_s)))


def _canonical(actions: np.ndarray) -> np.ndarray:
    """Mark steps that are not finite, and keep the gripper within [0, 1]."""
    actions[:, 6] = np.clip(actions[:, 6], 0.0, 1.0)
    return np.where(np.isfinite(actions).all(axis=1, keepdims=True), actions, np.nan)


def _check_period(chunk: RecordedChunk, period_s: float, where: str) -> None:
    if abs(chunk.period_s - period_s) > 0.01 * period_s:
        raise SourceError(
            f'{where}: expected deltas of {period_s:g} s as in action.period_s, found '
            f'{chunk.period_s:g} s; set action.period_s or leave this bag out')
