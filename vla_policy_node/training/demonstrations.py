"""
Frames from the simulator, each labelled by the expert for every task that is possible in it.

Half of the motion is the expert with noise, half wanders: a policy meets states that a clean
demonstration never shows, and every frame answers all instructions, so that words matter.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import multiprocessing

import numpy as np

from vla_policy_node.images import prepare
from vla_policy_node.simulation import COLOURS
from vla_policy_node.simulation import expert_action
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TASKS
from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames
from vla_policy_node.vla_config import CameraConfig

NATIVE_SIZE = (480, 640)
WANDER_LOWER = (0.36, -0.20, 0.02)
WANDER_UPPER = (0.64, 0.20, 0.24)
_MAX_STEP_M = 0.04
_AT_BLOCK_M = 0.06
_APPROACH_STEPS = 15


def observe(sim: TabletopSim, camera: CameraConfig) -> np.ndarray:
    """Return the picture the policy sees, (H, W, 3) uint8, as execution prepares it."""
    return prepare(sim.render(), camera)


def label(sim: TabletopSim, picture: np.ndarray, scene: int) -> Frames:
    """Return one frame with all its labels."""
    state = sim.state()
    blocks = np.full((len(COLOURS), 3), np.nan)
    for colour, position in state.blocks.items():
        blocks[COLOURS.index(colour)] = position
    actions = np.full((len(TASKS), 7), np.nan)
    for place, task in enumerate(TASKS):
        if task.colour in state.blocks:
            actions[place] = expert_action(state, task)
    uv = sim.project(np.concatenate([np.nan_to_num(blocks), state.tool[None]]))
    present = np.isfinite(blocks[:, :1])
    return Frames(
        images=picture[None], blocks=blocks[None].astype(np.float32),
        tool=state.tool[None].astype(np.float32),
        opening=np.array([state.gripper], np.float32),
        held=np.array([-1 if state.held is None else COLOURS.index(state.held)], np.int8),
        block_uv=np.where(present, uv[:-1], np.nan)[None].astype(np.float32),
        tool_uv=uv[-1:].astype(np.float32), actions=actions[None].astype(np.float32),
        scene=np.array([scene], np.int32),
    )


class Wanderer:
    """Moves through a scene: noisy expert, or towards random points, changing its mind."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._task: Task | None = None
        self._goal = np.zeros(3)
        self._gripper = 0.0
        self._drift = np.zeros(3)

    def action(self, sim: TabletopSim, first: bool) -> np.ndarray:
        """Return the next (7,) canonical delta."""
        state = sim.state()
        if first or self._rng.random() < 0.06:
            self._change_mind(state.blocks)
        self._drift = 0.8 * self._drift + self._rng.normal(0.0, 0.004, 3)
        if self._task is not None:
            action = expert_action(state, self._task)
            if self._rng.random() < 0.05:
                action[6] = 1.0 - action[6]
        else:
            step = np.clip(0.4 * (self._goal - state.tool), -_MAX_STEP_M, _MAX_STEP_M)
            action = np.array([*step, 0.0, 0.0, 0.0, self._gripper])
        action[:3] += self._drift
        return action

    def _change_mind(self, blocks: dict[str, np.ndarray]) -> None:
        rng = self._rng
        self._task, self._gripper = None, float(rng.random() < 0.5)
        if rng.random() < 0.65:
            possible = [task for task in TASKS if task.colour in blocks]
            # Picking has the most phases, so it is practised most.
            weights = np.array([2.0 if task.verb == 'pick' else 1.0 for task in possible])
            self._task = possible[rng.choice(len(possible), p=weights / weights.sum())]
        elif rng.random() < 0.5:
            self._goal = rng.uniform(WANDER_LOWER, WANDER_UPPER)
        else:
            place = blocks[rng.choice(list(blocks))]
            self._goal = place + np.array([*rng.normal(0, 0.03, 2), rng.uniform(0.0, 0.09)])


class Grasper:
    """
    Begins at a block and picks it up, slowly, with noise and sometimes a wrong gripper.

    A wanderer rarely has a block between its fingers, and what to do then is the hardest part.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._task: Task | None = None
        self._speed = float(rng.uniform(0.2, 1.0))

    def action(self, sim: TabletopSim, _first: bool) -> np.ndarray:
        """Return the next (7,) canonical delta."""
        action = expert_action(sim.state(), self._task)
        if self._rng.random() < 0.06:
            action[6] = 1.0 - action[6]
        action[:3] = self._speed * action[:3] + self._rng.normal(0.0, 0.004, 3)
        return action

    def approach(self, sim: TabletopSim) -> None:
        """Choose a block and bring the tool, unrecorded, to somewhere about it."""
        self._task = Task('pick', str(self._rng.choice(list(sim.state().blocks))))
        for _ in range(_APPROACH_STEPS):
            state = sim.state()
            if np.linalg.norm(state.blocks[self._task.colour] - state.tool) < _AT_BLOCK_M:
                return
            sim.apply_delta(expert_action(state, self._task))


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRange:
    """Scenes first..first+count-1 of a seed, `frames` frames each, moving as SceneSet says."""

    seed: int
    first: int
    count: int
    frames: int
    motion: str = 'wander'


def generate(scenes: SceneRange, camera: CameraConfig) -> Frames:
    """Simulate a range of scenes in this process; the same range gives the same frames."""
    sim = TabletopSim(image_size=NATIVE_SIZE)
    return concatenate(list(_frames(sim, scenes, camera)))


def _frames(sim: TabletopSim, scenes: SceneRange, camera: CameraConfig) -> Iterator[Frames]:
    for scene in range(scenes.first, scenes.first + scenes.count):
        rng = np.random.default_rng((scenes.seed, scene))
        sim.reset(int(rng.integers(2**31)))
        mover = _mover(sim, rng, scenes.motion)
        for step in range(scenes.frames):
            yield label(sim, observe(sim, camera), scene)
            sim.apply_delta(mover.action(sim, step == 0))


def _mover(sim: TabletopSim, rng: np.random.Generator, motion: str) -> Wanderer | Grasper:
    if motion == 'wander':
        return Wanderer(rng)
    grasper = Grasper(rng)
    grasper.approach(sim)
    return grasper


def generate_parallel(scenes: SceneRange, camera: CameraConfig, workers: int) -> Frames:
    """Do the same with several processes; the result does not depend on their number."""
    if workers == 1:
        return generate(scenes, camera)
    bounds = np.linspace(scenes.first, scenes.first + scenes.count, workers + 1).astype(int)
    parts = [
        SceneRange(seed=scenes.seed, first=int(a), count=int(b - a), frames=scenes.frames,
                   motion=scenes.motion)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True) if b > a
    ]
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return concatenate(list(pool.map(generate, parts, [camera] * len(parts))))
