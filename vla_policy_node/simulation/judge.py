"""Decides from the simulator's state whether a task was done."""

import numpy as np

from vla_policy_node.simulation.scene import BLOCK_SIZE_M
from vla_policy_node.simulation.state import SceneState
from vla_policy_node.simulation.tasks import Task

TOUCH_DISTANCE_M = 0.015
LIFT_HEIGHT_M = 0.05
PUSH_DISTANCE_M = 0.06

_CONTACT_AGE_S = 0.015  # a contact seen this recently still lasts


class TaskJudge:
    """
    Follows one episode by its states and knows when the task was done.

    touch: the gripper touches the named block or the tool point comes within 1.5 cm of it, before
    the gripper newly touches another.
    pick: the block is held 5 cm above where it started.
    push: the block is 6 cm to the commanded side of where it started.
    A success is final.
    """

    def __init__(self, task: Task, initial_state: SceneState) -> None:
        """
        Begin to judge `task` from `initial_state` on.

        :raises ValueError: if the named block is not on the table.
        """
        if task.colour not in initial_state.blocks:
            present = ', '.join(initial_state.blocks)
            raise ValueError(f'there is no {task.colour} block for {task.name!r}, only: {present}')
        self.task = task
        self.succeeded = False
        self.reason = f'{task.name}: not done yet'
        self.nearest_block = _nearest_block(initial_state)
        self._start = initial_state.blocks[task.colour].copy()
        self._seen_until_s = initial_state.time_s
        self._excused = {
            colour for colour, when in initial_state.last_contact_s.items()
            if when >= initial_state.time_s - _CONTACT_AGE_S
        }
        self._touched_other: str | None = None

    def update(self, state: SceneState) -> bool:
        """Take in the newest state; return whether the task is done by now."""
        self.nearest_block = _nearest_block(state)
        if not self.succeeded:
            check = {'touch': self._touched, 'pick': self._picked}.get(
                self.task.verb, self._pushed)
            self.succeeded, self.reason = check(state)
        self._seen_until_s = state.time_s
        return self.succeeded

    def _touched(self, state: SceneState) -> tuple[bool, str]:
        colour = self.task.colour
        fresh = {c for c, when in state.last_contact_s.items() if when > self._seen_until_s}
        self._excused &= fresh
        others = sorted(fresh - self._excused - {colour})
        if others and self._touched_other is None:
            self._touched_other = others[0]
        if self._touched_other is not None:
            return False, f'touched the {self._touched_other} block first'
        distance = _distance_to_block(state.tool, state.blocks[colour])
        if colour in fresh or distance <= TOUCH_DISTANCE_M:
            return True, f'touched the {colour} block'
        return False, f'the tool is {distance * 100:.1f} cm from the {colour} block'

    def _picked(self, state: SceneState) -> tuple[bool, str]:
        colour = self.task.colour
        lift = state.blocks[colour][2] - self._start[2]
        done = lift >= LIFT_HEIGHT_M and state.held == colour
        return bool(done), f'the {colour} block is {lift * 100:.1f} cm above its start'

    def _pushed(self, state: SceneState) -> tuple[bool, str]:
        colour, side = self.task.colour, 1.0 if self.task.verb == 'push left' else -1.0
        way = (state.blocks[colour][1] - self._start[1]) * side
        direction = self.task.verb.removeprefix('push ')
        return bool(way >= PUSH_DISTANCE_M), (
            f'the {colour} block is {way * 100:.1f} cm to the {direction} of its start')


def _nearest_block(state: SceneState) -> str:
    """Return the colour of the block whose centre is nearest to the tool point."""
    return min(
        state.blocks, key=lambda colour: np.linalg.norm(state.blocks[colour] - state.tool))


def _distance_to_block(point: np.ndarray, centre: np.ndarray) -> float:
    """Return the distance from a point to the block's surface, its small yaw neglected."""
    outside = np.maximum(np.abs(point - centre) - BLOCK_SIZE_M / 2, 0.0)
    return float(np.linalg.norm(outside))
