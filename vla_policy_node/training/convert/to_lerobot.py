"""From recorded episodes to a LeRobot data set; knows nothing of bags."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol

import numpy as np

from vla_policy_node.training.convert.dataset import LeRobotWriter
from vla_policy_node.training.convert.dataset import MisfitError
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.training.convert.finished import finished_at
from vla_policy_node.training.convert.resampling import MAX_PAUSE
from vla_policy_node.training.convert.resampling import Plan
from vla_policy_node.training.convert.resampling import plan_frames

UNUSABLE = 'frame without a finite action'
ALONE = f'frame with no other within {MAX_PAUSE:g} periods'
MISFIT = 'frame with other cameras or sizes than the first'
ALIGNMENT = ('steps are one period apart from the first usable frame on; each is the frame that '
             'is nearest in time, its picture with the action of the period from it on')


class Episode(Protocol):
    """
    What a robot recorded with one instruction, as N frames.

    path: the bag. stamp_ns: (N,) int64 ascending. actions: (N, 7) float64 canonical, what was done
    in the period from the stamp on, not finite where unusable.
    """

    path: Path
    instruction: str
    stamp_ns: np.ndarray
    actions: np.ndarray


class Frame(Protocol):
    """One step of an episode with its pictures, (H, W, 3) uint8 RGB by camera name."""

    episode: Episode
    step: int
    images: Mapping[str, np.ndarray]


class Recorded(Protocol):
    """Episodes, and how often which reason made their reader leave something out."""

    episodes: Sequence[Episode]
    skipped: Mapping[str, int]

    def frames(self, wanted: Sequence[Sequence[int]]) -> Iterator[Frame]:
        """
        Yield steps of the episodes in order, those without readable pictures left out.

        wanted: for each episode its steps, ascending.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a data set got: sizes are (height, width); left_out: reason -> how many."""

    episodes: int
    frames: int
    cameras: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, int]


def whole_fps(period_s: float) -> int:
    """Return 1/period as the whole number that LeRobot counts in; ConvertError for others."""
    fps = round(1.0 / period_s)
    if fps < 1 or abs(fps * period_s - 1.0) > 0.01:
        raise ConvertError(
            f'expected a period that fits a whole number of times into a second, as LeRobot '
            f'counts, found {period_s:g} s ({1.0 / period_s:.4g} times); choose another with '
            f'--fps, for example {max(1, fps)}')
    return fps


def write_lerobot(
    out: Path, recorded: Recorded, *, fps: int,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """
    Write the folder `out`, which must not exist; it appears when it is complete.

    show: called with the planned steps that are done and all of them. Raises ConvertError where
    nothing remains or the disk is full.
    """
    with finished_at(out) as folder:
        plans = [plan_frames(episode, 1.0 / fps) for episode in recorded.episodes]
        total = sum(plan.frames for plan in plans)
        conversion = _Conversion(LeRobotWriter(folder, fps=fps), fps)
        for done, _ in enumerate(conversion.steps(recorded, plans), 1):
            show(done, total)
        return conversion.finished(recorded.skipped)


class _Conversion:
    """Feeds a writer with episodes and counts what it does not get."""

    def __init__(self, writer: LeRobotWriter, fps: int) -> None:
        self._writer = writer
        self._left_out: Counter[str] = Counter()
        self._fps = fps
        self._pauses_s: list[float] = []
        self._origins: list[dict[str, Any]] = []

    def steps(self, recorded: Recorded, plans: Sequence[Plan]) -> Iterator[None]:
        """Write all pieces, one frame before every step of the iterator."""
        frames = _Frames(recorded, plans)
        for episode, plan in zip(recorded.episodes, plans, strict=True):
            self._left_out.update({UNUSABLE: plan.unusable, ALONE: plan.alone})
            self._pauses_s += (np.diff(episode.stamp_ns) * 1e-9).tolist() if plan.alone else []
            for piece in plan.pieces:
                yield from self._piece(episode, piece, frames)

    def finished(self, skipped: Mapping[str, int]) -> Written:
        """Complete the data set; ConvertError where it is empty."""
        counts = Counter(skipped) + self._left_out
        if not self._writer.episodes:
            raise ConvertError(self._nothing(counts))
        self._writer.finish({'alignment': ALIGNMENT, 'fps': self._fps, 'left_out': counts,
                             'episodes': self._origins})
        return Written(episodes=self._writer.episodes, frames=self._writer.frames,
                       cameras=self._writer.cameras, left_out=counts)

    def _piece(self, episode: Episode, piece: np.ndarray, frames: '_Frames') -> Iterator[None]:
        """Write a piece; a frame that cannot be used ends an episode as a pause does."""
        begun = False
        for done, step in enumerate(piece.tolist()):
            added = self._add(frames.images(episode, step), episode.actions[step],
                              len(piece) - done)
            if added and not begun:
                self._origins.append({'bag': episode.path.name,
                                      'first_stamp_ns': int(episode.stamp_ns[step])})
            if begun and not added:
                self._writer.end_episode(episode.instruction)
            begun = added
            yield
        self._writer.end_episode(episode.instruction)

    def _add(
        self, images: Mapping[str, np.ndarray] | None, action: np.ndarray, expected: int,
    ) -> bool:
        if images is None:
            return False
        try:
            self._writer.add(images, action, expected=expected)
        except MisfitError:
            self._left_out[MISFIT] += 1
            return False
        return True

    def _nothing(self, left_out: Mapping[str, int]) -> str:
        counted = ', '.join(f'{reason} ({count})' for reason, count in left_out.items())
        mend = 'record while the robot is carrying out an instruction'
        if self._pauses_s:
            mend = (f'they come every {np.median(self._pauses_s):.3g} s, so choose a smaller rate '
                    f'than {self._fps} with --fps')
        return f'expected frames to write, found none: {counted or "no frame at all"}; {mend}'


class _Frames:
    """Finds steps in the stream of planned frames, in whose order they must be asked for."""

    def __init__(self, recorded: Recorded, plans: Sequence[Plan]) -> None:
        self._order = {id(episode): place for place, episode in enumerate(recorded.episodes)}
        self._stream = iter(recorded.frames([plan.observations for plan in plans]))
        self._frame = next(self._stream, None)

    def images(self, episode: Episode, step: int) -> Mapping[str, np.ndarray] | None:
        """Return the pictures of a step, None where the stream left it out."""
        wanted = (self._order[id(episode)], step)
        while self._frame is not None and self._place(self._frame) < wanted:
            self._frame = next(self._stream, None)
        if self._frame is None or self._place(self._frame) != wanted:
            return None
        return self._frame.images

    def _place(self, frame: Frame) -> tuple[int, int]:
        return self._order[id(frame.episode)], frame.step
