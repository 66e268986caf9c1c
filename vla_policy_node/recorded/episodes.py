"""From the columns of one bag to episodes: which frames count, and what was done at each."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_policy_node.prompts import clean_instruction
from vla_policy_node.prompts import InstructionError
from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.recorded.grippers import build_gripper
from vla_policy_node.recorded.grippers import Gripper
from vla_policy_node.recorded.instructions import FixedInstruction
from vla_policy_node.recorded.instructions import Instructions
from vla_policy_node.recorded.instructions import SaidInstructions
from vla_policy_node.recorded.messages import Column
from vla_policy_node.recorded.messages import STRING_TYPE
from vla_policy_node.recorded.motion import build_motion
from vla_policy_node.recorded.motion import ChunkMotion
from vla_policy_node.recorded.motion import Motion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """
    Frames of the first camera in order, and the pictures that belong to each.

    stamp_ns, received_ns: (N,) int64. places: (N, C) int64, the place of each camera's picture
    among the messages of its topic, as they are read; -1 where there is none.
    """

    stamp_ns: np.ndarray
    received_ns: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.stamp_ns)

    def at(self, which: np.ndarray) -> 'Frames':
        """Return some of the frames; which: places or a mask."""
        return Frames(stamp_ns=self.stamp_ns[which], received_ns=self.received_ns[which],
                      places=self.places[which])

    def times_ns(self, stamped: bool) -> np.ndarray:
        """Return stamps or times of receipt, (N,) int64."""
        return self.stamp_ns if stamped else self.received_ns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deeds:
    """What was done: motion and, where it is recorded apart, gripper."""

    motion: Motion
    gripper: Gripper | None
    period_s: float

    def over(self, frames: Frames, offset_s: float = 0.0) -> np.ndarray:
        """
        Return the (N, 7) float64 canonical actions of the period from each frame on.

        offset_s: begins later than the frame. The gripper is that of the period's end. NaN in
        all seven where one is not known.
        """
        offset_ns = round(1e9 * offset_s)
        actions = self.motion.over(
            frames.times_ns(self.motion.stamped) + offset_ns, self.period_s)
        if self.gripper is not None:
            ends_ns = frames.times_ns(self.gripper.stamped) + round(1e9 * self.period_s)
            actions[:, 6] = self.gripper.at(ends_ns + offset_ns)
        return np.where(np.isfinite(actions).all(axis=1, keepdims=True), actions, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """
    Frames with one instruction and without a long pause.

    begin_ns, end_ns: stamps between which actions belong to it, both inclusive.
    """

    instruction: str
    frames: Frames
    deeds: Deeds
    begin_ns: int
    end_ns: int

    def over(self, offset_periods: int) -> np.ndarray:
        """
        Return the (N, 7) actions some periods after each frame, before it where negative.

        NaN beyond the stretch.
        """
        period_s = self.deeds.period_s
        actions = self.deeds.over(self.frames, offset_periods * period_s)
        begins_ns = self.frames.stamp_ns + offset_periods * round(1e9 * period_s)
        inside = (begins_ns >= self.begin_ns) & (begins_ns <= self.end_ns)
        return np.where(inside[:, None], actions, np.nan)


def stretches(
    columns: Mapping[str, Column], config: RecordedConfig, *, period_s: float,
    instruction: str | None, skipped: Counter[str],
) -> Iterator[Stretch]:
    """
    Yield the episodes of one bag in order.

    columns: see messages.scan. instruction: said all the time, instead of what the configuration
    names. skipped: counts frames that are left out, by reason.
    """
    for part in _clocks(columns, config, skipped):
        deeds = _deeds(part, config, period_s, skipped)
        told = _told(part, config, instruction)
        frames = _paired(part, config, skipped)
        yield from _cut(frames, deeds, told, config, skipped)


def _clocks(
    columns: Mapping[str, Column], config: RecordedConfig, skipped: Counter[str],
) -> Iterator[Mapping[str, Column]]:
    """
    Yield the columns between jumps of the clock, each with stamps of one run of it.

    A clock that is set back, as a simulator's reset does, begins another part; smaller steps back
    are single frames out of order.
    """
    camera = columns[next(iter(config.cameras.values()))]
    steps = np.diff(camera.times_ns())
    jumps = np.flatnonzero(steps < -1e9 * config.max_gap_s) + 1
    if len(jumps):
        skipped['clock set back: another episode begins'] += len(jumps)
    edges = [np.iinfo(np.int64).min, *camera.received_ns[jumps], np.iinfo(np.int64).max]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if len(edges) == 2:
            yield columns
        else:
            yield {topic: column.at(np.flatnonzero(
                (column.received_ns >= start) & (column.received_ns < stop)))
                for topic, column in columns.items()}


def _deeds(
    columns: Mapping[str, Column], config: RecordedConfig, period_s: float,
    skipped: Counter[str],
) -> Deeds:
    motion = build_motion(columns[config.actions.topic], config, period_s, skipped)
    gripper = None
    if config.gripper is not None and config.gripper.kind != 'chunk':
        gripper = build_gripper(columns.get(getattr(config.gripper, 'topic', '')), config.gripper)
    return Deeds(motion=motion, gripper=gripper, period_s=period_s)


def _told(
    columns: Mapping[str, Column], config: RecordedConfig, instruction: str | None,
) -> Instructions:
    if instruction is not None:
        return FixedInstruction(instruction)
    column = columns[config.instruction.topic]
    return SaidInstructions(column, before=column.type == STRING_TYPE)


def _paired(
    columns: Mapping[str, Column], config: RecordedConfig, skipped: Counter[str],
) -> Frames:
    """Return the first camera's frames in order of time, each with the others' pictures."""
    first, *others = (columns[topic] for topic in config.cameras.values())
    times = first.times_ns()
    forward = times > np.maximum.accumulate(np.append(np.iinfo(np.int64).min, times[:-1]))
    _count(skipped, 'time going backwards', ~forward)
    kept = np.flatnonzero(forward)
    places = np.full((len(kept), len(config.cameras)), -1)
    places[:, 0] = first.places[kept]
    frames = Frames(stamp_ns=times[kept], received_ns=first.received_ns[kept], places=places)
    for number, (name, other) in enumerate(zip(list(config.cameras)[1:], others, strict=True), 1):
        places[:, number] = _newest_pictures(
            other, frames.times_ns(other.stamped), config.max_skew_s)
        _count(skipped, f'no picture of camera {name} in the {config.max_skew_s:g} s before',
               places[:, number] < 0)
    return frames.at((places >= 0).all(axis=1))


def _newest_pictures(camera: Column, times_ns: np.ndarray, max_age_s: float) -> np.ndarray:
    """Return the (N,) places of the newest pictures at or before (N,) times, -1 for too old."""
    if not len(camera):
        return np.full(len(times_ns), -1)
    stamps = camera.times_ns()
    order = np.argsort(stamps, kind='stable')
    rank = np.searchsorted(stamps[order], times_ns, side='right') - 1
    row = order[np.maximum(rank, 0)]
    near = (rank >= 0) & (times_ns - stamps[row] <= 1e9 * max_age_s)
    return np.where(near, camera.places[row], -1)


def _cut(
    frames: Frames, deeds: Deeds, told: Instructions, config: RecordedConfig,
    skipped: Counter[str],
) -> Iterator[Stretch]:
    texts = np.array(_clean(told.at(frames.times_ns(told.stamped)), skipped), np.str_)
    acted = np.isfinite(deeds.over(frames)).all(axis=1)
    spoken = texts != ''
    _count(skipped, 'no instruction', ~spoken)
    _count(skipped, 'no usable action recorded', spoken & ~acted)
    # Words that were said all along are one run; a run without a usable frame is no episode.
    run = np.cumsum(np.append(False, texts[1:] != texts[:-1])[:len(texts)])
    empty = np.setdiff1d(run[spoken], run[spoken & acted])
    _count(skipped, 'episode without a usable frame', empty >= 0)
    usable = np.flatnonzero(spoken & acted)
    if not len(usable):
        return
    groups = _groups(frames, texts, usable, deeds.motion, config.max_gap_s)
    edges = _edges([frames.stamp_ns[group] for group in groups], deeds.period_s)
    for group, (begin_ns, end_ns) in zip(groups, edges, strict=True):
        yield Stretch(
            instruction=str(texts[group[0]]), deeds=deeds, begin_ns=begin_ns, end_ns=end_ns,
            frames=_selected(frames.at(group), deeds, config))


def _edges(stamps: Sequence[np.ndarray], period_s: float) -> list[tuple[int, int]]:
    """
    Return from when to when actions belong to episodes with frames at these stamps.

    That is half a period beyond their first and last frame, because control is not exactly
    periodic, but never nearer to a neighbour's frames than to their own.
    """
    slack_ns = round(0.5e9 * period_s)
    apart = [int(later[0] - earlier[-1]) // 2 - 1
             for earlier, later in zip(stamps[:-1], stamps[1:], strict=True)]
    return [(int(own[0]) - min(slack_ns, before), int(own[-1]) + min(slack_ns, after))
            for own, before, after in zip(stamps, [slack_ns, *apart], [*apart, slack_ns],
                                          strict=True)]


def _clean(texts: Sequence[str], skipped: Counter[str]) -> list[str]:
    """Return the words as a prompt takes them, '' where it would refuse them."""
    cleaned: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        try:
            cleaned[text] = clean_instruction(text) if text.strip() else ''
        except InstructionError as error:
            cleaned[text] = ''
            skipped[str(error)] += 1
    return [cleaned[text] for text in texts]


def _groups(
    frames: Frames, texts: np.ndarray, usable: np.ndarray, motion: Motion, max_gap_s: float,
) -> list[np.ndarray]:
    """Return the usable places of each episode."""
    times = frames.stamp_ns[usable]
    words = texts[usable]
    # The frame at which the task was done is the last one of its episode.
    done = np.searchsorted(motion.ends_ns, frames.times_ns(motion.stamped)[usable], side='left')
    cut = (words[1:] != words[:-1]) | (np.diff(times) > 1e9 * max_gap_s) | (np.diff(done) > 0)
    return np.split(usable, np.flatnonzero(cut) + 1)


def _selected(frames: Frames, deeds: Deeds, config: RecordedConfig) -> Frames:
    select = config.frames.select
    if select == 'period':
        frames = frames.at(_every_period(frames.stamp_ns, deeds.period_s))
    elif select == 'chunks' and isinstance(deeds.motion, ChunkMotion):
        times = frames.times_ns(deeds.motion.stamped)
        newest = np.searchsorted(times, deeds.motion.times_ns, side='right') - 1
        within = newest >= 0
        age_ns = deeds.motion.times_ns[within] - times[newest[within]]
        frames = frames.at(np.unique(newest[within][age_ns <= 0.5e9 * deeds.period_s]))
    return frames.at(slice(None, None, config.frames.every))


def _every_period(stamp_ns: np.ndarray, period_s: float) -> np.ndarray:
    """Return the places of the newest frames at every period since the first frame."""
    ticks = np.arange(stamp_ns[0], stamp_ns[-1] + 1, round(1e9 * period_s))
    return np.unique(np.searchsorted(stamp_ns, ticks, side='right') - 1)


def _count(skipped: Counter[str], reason: str, which: np.ndarray) -> None:
    """Count the True ones of (N,) bool, if there are any."""
    if which.any():
        skipped[reason] += int(which.sum())
