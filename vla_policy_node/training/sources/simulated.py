"""Demonstrations and questions of the simulated table, made once and then read from disk."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from vla_policy_node.simulation import ACTION_PERIOD_S
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TASKS
from vla_policy_node.training.frames import COLOURS
from vla_policy_node.training.questions import draw_question
from vla_policy_node.training.sources.config import SimulatorQuestionsSection
from vla_policy_node.training.sources.config import SimulatorSection
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.training.sources.simulated_frames import CAMERA
from vla_policy_node.training.sources.simulated_frames import SimulatedFrames
from vla_policy_node.training.sources.steps import Steps


class SimulatorSource:
    """
    A RobotSource of the scripted expert; see SimulatorSection.

    With motion 'expert' a record is a step of a demonstration. Otherwise it is a frame together
    with one of the tasks that are possible in it, and no record ends an episode.
    """

    kind: Literal['robot'] = 'robot'

    def __init__(
        self, name: str, section: SimulatorSection, *, horizon: int, period_s: float, cache: Path,
    ) -> None:
        self.name = name
        self._seed = section.seed
        self._horizon = horizon
        self._is_demonstration = section.scenes.motion == 'expert'
        self._check(section, period_s)
        self._frames = SimulatedFrames(name, section, cache)
        frame, task = self._records()
        columns = self._frames.columns
        self._steps = Steps(
            cache, actions=columns.actions[frame, task].astype(np.float64),
            episodes=columns.scene[frame].astype(np.int64), frame=frame, task=task)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the scene of each record."""
        return self._steps.episodes

    def actions(self) -> np.ndarray:
        """Return (N, 7) float64 canonical actions."""
        return self._steps.actions

    def __getitem__(self, index: int) -> RobotRecord:
        """Return the record at `index`; its wording is drawn from the index."""
        index = range(len(self))[index]
        frame = self._frames.frame(int(self._steps.column('frame')[index]))
        task = TASKS[self._steps.column('task')[index]]
        actions, ends = self._steps.window(index, self._horizon)
        rng = np.random.default_rng((self._seed, index))
        return RobotRecord(
            images={CAMERA: np.array(frame.images[0])},
            instruction=task.instructions[rng.integers(len(task.instructions))],
            actions=actions, terminate=self._is_demonstration and ends,
            plan=_plan(task, frame.block_uv[0]))

    def fingerprint(self) -> str:
        """Return a sha256 over the frames' origin, positions and actions."""
        return self._frames.fingerprint()

    def _check(self, section: SimulatorSection, period_s: float) -> None:
        if abs(period_s - ACTION_PERIOD_S) > 0.01 * ACTION_PERIOD_S:
            raise SourceError(f'{self.name}: expected a period of {ACTION_PERIOD_S:g} s, which '
                              f'the simulator has, found {period_s:g} s; set action.period_s')
        if self._horizon > 1 and not self._is_demonstration:
            raise SourceError(
                f'{self.name}: expected a horizon of 1 with motion {section.scenes.motion}, whose '
                f'frames have one action each, found {self._horizon}; set scenes.motion to expert')

    def _records(self) -> tuple[np.ndarray, np.ndarray]:
        """Return frame and task of every record, (N,) int64 each."""
        if self._is_demonstration:
            return np.arange(len(self._frames)), self._frames.tasks.astype(np.int64)
        return np.nonzero(np.isfinite(self._frames.columns.actions[:, :, 0]))


class SimulatorQuestionSource:
    """A Source of questions about the frames of a SimulatorSource; points are '120 88'."""

    kind: Literal['text'] = 'text'

    def __init__(self, name: str, section: SimulatorQuestionsSection, *, cache: Path) -> None:
        self.name = name
        self._section = section
        self._frames = SimulatedFrames(name, section, cache)

    def __len__(self) -> int:
        return len(self._frames) * self._section.per_frame

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the scene of each question."""
        return np.repeat(self._frames.columns.scene.astype(np.int64), self._section.per_frame)

    def __getitem__(self, index: int) -> TextRecord:
        """Return the question at `index`, drawn from the index."""
        index = range(len(self))[index]
        frame = self._frames.frame(index // self._section.per_frame)
        rng = np.random.default_rng((self._section.seed, index))
        question = draw_question(frame, 0, rng, pointing_only=False)
        answer = ' '.join(question.words) if question.point is None else _point(question.point)
        return TextRecord(
            question=question.text, answer=answer, images={CAMERA: np.array(frame.images[0])})

    def fingerprint(self) -> str:
        """Return a sha256 over the frames and how many questions each has."""
        text = f'{self._frames.fingerprint()} {self._section.per_frame}'
        return hashlib.sha256(text.encode()).hexdigest()


def _plan(task: Task, block_uv: np.ndarray) -> str:
    return f'{task.colour} block at {_point(block_uv[COLOURS.index(task.colour)])}'


def _point(uv: np.ndarray | tuple[float, float]) -> str:
    """Write an image position in [0, 1] as two of the numbers 0..255, right and down."""
    u, v = np.clip(np.asarray(uv) * 256, 0, 255).astype(int)
    return f'{u} {v}'
