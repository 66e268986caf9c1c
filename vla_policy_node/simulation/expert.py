"""
The scripted expert: a proportional controller on the simulator's state.

It has no memory, so it can be asked about any state for any task, and its phases are blended
into each other, so a network that imitates it meets few sudden changes. Heights follow a funnel:
the tool may be low only where it is horizontally close to where it has to come down.

A network sees positions to about a centimetre and then acts on the mean of what the expert would
do within that. So the funnel and the grasp are as wide as the physics allows, and neighbouring
states do not get opposite actions: a narrow funnel makes such a mean hover above the block.
"""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.simulation.scene import BLOCK_SIZE_M
from vla_policy_node.simulation.scene import FINGER_TIP_BELOW_TOOL_M
from vla_policy_node.simulation.state import SceneState
from vla_policy_node.simulation.tasks import Task

MAX_STEP_M = 0.04     # per axis and per 0.2 s, approached smoothly
GAIN = 0.5            # part of a short remaining way made in 0.2 s

_REFERENCE_PERIOD_S = 0.2
_HALF = BLOCK_SIZE_M / 2
_HOVER_M = 0.10       # tool height at which the fingers pass above all blocks
_LOW_M = 0.020        # tool height for grasping and pushing
_LIFT_M = 0.16
_TOUCH_M = BLOCK_SIZE_M + FINGER_TIP_BELOW_TOOL_M - 0.006
_HELD_OPENING = 0.5   # a held block keeps the gripper at 0.44
_PUSH_FROM_M = 0.055  # the tool comes down this far behind the block's centre
_PUSH_TO_M = 0.040    # and then aims this far beyond it
_NEAR_M = 0.022       # horizontal distance within which the tool may be low
_FAR_M = 0.065        # and from which on it stays at hover height
_GRASP_DISTANCE_M = 0.026
_GRASP_HEIGHT_M = 0.016


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aim:
    """Where the tool should go (metres in `base`) and the gripper's opening."""

    x: float
    y: float
    z: float
    gripper: float
    low_distance_m: float
    """Horizontal distance to where the tool may be as low as `z`."""


def expert_action(state: SceneState, task: Task, period_s: float = 0.2) -> np.ndarray:
    """
    Return the (7,) float64 canonical delta by which the expert would continue `task`.

    Translation in metres in `base` (less than 4 cm per axis and 0.2 s), zero rotation, gripper
    0 closed to 1 open.

    :param period_s: time the delta will take; the step grows with it.
    :raises ValueError: if the named block is not on the table.
    """
    if task.colour not in state.blocks:
        present = ', '.join(state.blocks)
        raise ValueError(f'there is no {task.colour} block for {task.name!r}, only: {present}')
    block = state.blocks[task.colour]
    if task.verb == 'touch':
        aim = _touch(state, block)
    elif task.verb == 'pick':
        aim = _pick(state, block, holds=state.held == task.colour)
    else:
        aim = _push(state, block, 1.0 if task.verb == 'push left' else -1.0)
    return _towards(state, aim, task, period_s / _REFERENCE_PERIOD_S)


def _towards(state: SceneState, aim: _Aim, task: Task, periods: float) -> np.ndarray:
    """Return the proportional step to an aim, rising before moving where the tool is too low."""
    funnel = _ramp(aim.low_distance_m, _NEAR_M, _FAR_M) * max(_HOVER_M - aim.z, 0.0)
    height = aim.z + funnel
    too_low = _ramp(height - state.tool[2], 0.01, 0.04)
    way = np.array([
        (aim.x - state.tool[0]) * (1.0 - too_low),
        (aim.y - state.tool[1]) * (1.0 - too_low),
        height - state.tool[2],
    ])
    gripper = aim.gripper
    if state.held is not None and (task.verb != 'pick' or state.held != task.colour):
        way, gripper = np.zeros(3), 1.0  # let go of what is not wanted before anything else
    step = MAX_STEP_M * np.tanh(GAIN / MAX_STEP_M * way) * periods
    return np.concatenate([step, np.zeros(3), [gripper]])


def _touch(state: SceneState, block: np.ndarray) -> _Aim:
    """Come down on the block's top with the gripper closed."""
    return _Aim(
        x=block[0], y=block[1], z=block[2] - _HALF + _TOUCH_M, gripper=0.0,
        low_distance_m=float(np.hypot(*(block - state.tool)[:2])),
    )


def _pick(state: SceneState, block: np.ndarray, *, holds: bool) -> _Aim:
    """Come down around the block with the gripper open, close it, lift."""
    distance = float(np.hypot(*(block - state.tool)[:2]))
    grasp_height = block[2] - _HALF + _LOW_M
    above_grasp = state.tool[2] - grasp_height
    around = distance < _GRASP_DISTANCE_M and above_grasp < _GRASP_HEIGHT_M
    # Closed fingers would come down on the block, so they open above it; beside it they just open.
    shut = _ramp(above_grasp, 0.025, 0.035) * (1.0 - _ramp(state.gripper, 0.55, 0.85))
    low = grasp_height + shut * (_HOVER_M - _LOW_M)
    closed = 1.0 - _ramp(state.gripper, _HELD_OPENING, _HELD_OPENING + 0.05)
    grasped = closed if around or holds else 0.0
    return _Aim(
        x=block[0], y=block[1], z=low + grasped * (_LIFT_M - low),
        gripper=0.0 if around or grasped else 1.0,
        low_distance_m=distance * (1.0 - grasped),
    )


def _push(state: SceneState, block: np.ndarray, side: float) -> _Aim:
    """Come down on the block's far side with the gripper closed, then go through it."""
    across = abs(state.tool[0] - block[0])
    along = (state.tool[1] - block[1]) * side
    pushing = (
        (1.0 - _ramp(state.tool[2], 0.035, 0.055))
        * (1.0 - _ramp(across, 0.020, 0.040))
        * (1.0 - _ramp(along, -0.015, 0.0))
    )
    aim_along = -_PUSH_FROM_M + pushing * (_PUSH_FROM_M + _PUSH_TO_M)
    behind = np.clip(along, -0.085, -(_HALF + 0.014))
    return _Aim(
        x=block[0], y=block[1] + side * aim_along, z=_LOW_M, gripper=0.0,
        low_distance_m=float(np.hypot(across, along - behind)) * (1.0 - pushing),
    )


def _ramp(value: float, start: float, end: float) -> float:
    """Return 0 below `start`, 1 above `end` and a straight line between."""
    return float(np.clip((value - start) / (end - start), 0.0, 1.0))
