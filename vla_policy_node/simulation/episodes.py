"""Closed-loop episodes in lock-step: the simulator waits for every action."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_policy_node.simulation.judge import TaskJudge
from vla_policy_node.simulation.tabletop import TabletopSim
from vla_policy_node.simulation.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeOutcome:
    """
    How an episode went.

    :param steps: actions carried out, the last one being the one that did the task, if any.
    :param nearest_block: colour of the block nearest to the tool at the end.
    :param reason: one line of the judge about the end.
    """

    succeeded: bool
    steps: int
    nearest_block: str
    reason: str


def run_episode(sim: TabletopSim, task: Task, act: Callable[[TabletopSim], np.ndarray],
                max_steps: int = 60) -> EpisodeOutcome:
    """
    Let `act` do `task` in the scene as it is, until done or for `max_steps` periods of 0.2 s.

    :param act: simulator -> (7,) canonical delta; a policy may only use `sim.render()` of it.
    """
    judge = TaskJudge(task, sim.state())
    steps = 0
    while steps < max_steps and not judge.succeeded:
        sim.apply_delta(act(sim))
        steps += 1
        judge.update(sim.state())
    return EpisodeOutcome(
        succeeded=judge.succeeded,
        steps=steps,
        nearest_block=judge.nearest_block,
        reason=judge.reason,
    )
