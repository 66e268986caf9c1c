"""Draws batches: images at random, and for each image several tasks and questions."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from vla_policy_node.training.frames import COLOURS
from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.labels import Sample
from vla_policy_node.training.labels import tasks_of
from vla_policy_node.training.questions import draw_question

_NEAR_M = 0.06


class Mixture:
    """
    Samples of all sources over one set of frames.

    tasks: (verb, colour, instructions) of every task, in the order of Frames.actions. pool:
    (M,) indices that are drawn from, where some frames shall come more often; None for all.
    """

    def __init__(
        self, frames: Frames, builder: LabelBuilder,
        tasks: Sequence[tuple[str, str, Sequence[str]]], pool: np.ndarray | None = None,
    ) -> None:
        self.frames = frames
        self.pool = np.arange(len(frames)) if pool is None else pool
        self._builder = builder
        self._tasks = tasks
        self._swap = _mirrored_tasks(tasks)

    def extended(self, frames: Frames, repeat: int) -> 'Mixture':
        """Return a mixture with more frames, drawn `repeat` times as often as the others."""
        added = np.arange(len(self.frames), len(self.frames) + len(frames))
        return Mixture(
            concatenate([self.frames, frames]), self._builder, self._tasks,
            np.concatenate([self.pool, np.repeat(added, repeat)]))

    def pick(self, rng: np.random.Generator, count: int, *, mirror: bool) -> Frames:
        """Draw frames at random, each mirrored half of the time when asked to."""
        chosen = self.frames.take(rng.choice(self.pool, count))
        return chosen.mirrored(rng.random(count) < 0.5, self._swap) if mirror else chosen

    def draw(
        self, rng: np.random.Generator, frames: Frames, *, prompts: int,
        shares: Mapping[str, float], pointing_only: bool, near_emphasis: float = 0.0,
    ) -> tuple[list[Sample], list[int]]:
        """Return `prompts` samples for each of the frames, and which frame each belongs to."""
        samples, owners = [], []
        for index in range(len(frames)):
            for is_robot in rng.random(prompts) < shares.get('robot', 0.0):
                if is_robot:
                    task = self._choose(frames, index, rng, near_emphasis)
                    samples.append(self.task(frames, index, task, rng))
                else:
                    samples.append(self._builder.question(
                        draw_question(frames, index, rng, pointing_only=pointing_only)))
                owners.append(index)
        return samples, owners

    def _choose(
        self, frames: Frames, index: int, rng: np.random.Generator, near_emphasis: float
    ) -> int:
        """
        Choose one of a frame's tasks.

        Most of a frame's tasks only say "go over there"; what happens at a block, and differs
        between verbs, is asked often enough only when it is asked for.
        """
        tasks = tasks_of(frames, index)
        if near_emphasis == 0.0:
            return int(rng.choice(tasks))
        blocks = frames.blocks[index, [COLOURS.index(self._tasks[task][1]) for task in tasks]]
        distance = np.linalg.norm(blocks - frames.tool[index], axis=1)
        weights = 1.0 + near_emphasis * np.exp(-(distance / _NEAR_M) ** 2)
        return int(rng.choice(tasks, p=weights / weights.sum()))

    def task(
        self, frames: Frames, index: int, task: int, rng: np.random.Generator | None = None
    ) -> Sample:
        """Label a frame with the expert's action; a random wording, or the first without rng."""
        _, colour, instructions = self._tasks[task]
        words = instructions[0] if rng is None else instructions[rng.integers(len(instructions))]
        return self._builder.action(
            words, frames.actions[index, task], frames.block_uv[index, COLOURS.index(colour)])


def _mirrored_tasks(tasks: Sequence[tuple[str, str, Sequence[str]]]) -> np.ndarray:
    other = {'push left': 'push right', 'push right': 'push left'}
    places = {(verb, colour): place for place, (verb, colour, _) in enumerate(tasks)}
    return np.array([places[other.get(verb, verb), colour] for verb, colour, _ in tasks])
