"""
The steps of demonstrations one after the other, and the K actions that follow any of them.

Knows nothing of where steps were recorded; actions are canonical here.
"""

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.prompts import clean_instruction
from vla_policy_node.prompts import InstructionError
from vla_policy_node.training.sources.mapped_columns import MappedColumns
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord


class Steps:
    """
    N steps of all episodes in order, kept in files under `cache` and mapped from there.

    actions: (N, 7) float64 canonical for one period from each step on, NaN where one cannot be
    used. episodes: (N,) int64 ascending. places: further (N,) columns. stride: steps that one
    action takes, so that the action after the one at i is the one at i + stride.
    """

    def __init__(
        self, cache: Path, *, actions: np.ndarray, episodes: np.ndarray, stride: int = 1,
        **places: np.ndarray,
    ) -> None:
        self.stride = stride
        self._columns = MappedColumns(cache, {
            'actions': actions, 'episodes': episodes, **places})

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def actions(self) -> np.ndarray:
        """(N, 7) float64, mapped."""
        return self.column('actions')

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64, mapped."""
        return self.column('episodes')

    def column(self, name: str) -> np.ndarray:
        """Return a column, mapped."""
        return self._columns[name]

    def window(self, index: int, horizon: int) -> tuple[np.ndarray, bool]:
        """
        Return the (K, 7) actions from a step on, and whether the episode ends within them.

        Behind the end they are zero motion with the gripper as it was.
        """
        later = self.episodes[index:]
        end = index + int(np.searchsorted(later, later[0], side='right'))
        places = index + self.stride * np.arange(horizon)
        beyond = places >= end
        actions = self.actions[np.minimum(places, end - 1)]
        if beyond.any():
            actions[beyond] = (*[0.0] * (ACTION_DIM - 1), actions[~beyond][-1, 6])
        return actions, bool(places[-1] + self.stride >= end)

    def usable(self) -> np.ndarray:
        """Return the (M, 7) actions that are finite."""
        return self.actions[np.isfinite(self.actions).all(axis=1)]

    def digest(self) -> str:
        """Return the sha256 of all columns."""
        return self._columns.digest


def build_record(
    where: str, steps: Steps, index: int, *, horizon: int, instruction: str,
    images: Callable[[], Mapping[str, np.ndarray]], plan: str = '',
) -> RobotRecord:
    """
    Return the record of a step, looking at its pictures last.

    where: file and step, for errors. images: decodes the pictures. Raises RecordError for actions
    that are not finite and for an instruction that no prompt takes.
    """
    actions, ends = steps.window(index, horizon)
    if not np.isfinite(actions).all():
        later, dimension = np.argwhere(~np.isfinite(actions))[0]
        raise RecordError(
            f'{where}: expected finite actions, found {actions[later, dimension]} in '
            f'{DIM_NAMES[dimension]} of action {later}; repair it, or go on without this step')
    try:
        words = clean_instruction(instruction)
    except InstructionError as error:
        raise RecordError(f'{where}: {error}; or set `instruction` of the source') from error
    return RobotRecord(
        images=images(), instruction=words, actions=actions, terminate=ends, plan=plan)
