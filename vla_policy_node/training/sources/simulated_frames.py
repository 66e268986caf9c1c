"""
Frames of the simulator, made once and then read from disk, memory-mapped.

The same section gives the same folder, so demonstrations and questions share their frames.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
import hashlib
import json
import multiprocessing
import os
from pathlib import Path
import shutil

import numpy as np
from rich.progress import track

from vla_policy_node.simulation import expert_action
from vla_policy_node.simulation import SimulationError
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import TaskJudge
from vla_policy_node.simulation import TASKS
from vla_policy_node.training.demonstrations import generate
from vla_policy_node.training.demonstrations import label
from vla_policy_node.training.demonstrations import NATIVE_SIZE
from vla_policy_node.training.demonstrations import observe
from vla_policy_node.training.demonstrations import SceneRange
from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.sources.config import SceneSection
from vla_policy_node.training.sources.config import SimulatorSection
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.vla_config import CameraConfig

CAMERA = 'primary'
EVERY_TASK = -1

_FORMAT = 1     # part of the folder's name: raise it when the frames would differ
_BLOCK_FRAMES = 1000
_COLUMNS = tuple(field.name for field in fields(Frames))

Block = tuple[Frames, np.ndarray]


class SimulatedFrames:
    """
    The N frames of a section, simulated now where the folder `cache` does not hold them yet.

    Can be pickled: other processes map the files themselves. Raises SourceError where the
    simulator cannot run or no episode was completed.
    """

    def __init__(self, name: str, section: SimulatorSection, cache: Path) -> None:
        wanted = json.dumps({
            'format': _FORMAT, 'seed': section.seed, 'size': section.size,
            'scenes': section.scenes.model_dump()}, sort_keys=True)
        self.path = cache / f'simulator-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}'
        if not self.path.is_dir():
            _make(name, section, self.path)
        self._count = int(json.loads((self.path / 'count.json').read_text())['frames'])
        self._mapped: tuple[Frames, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> Frames:
        """All frames, mapped."""
        return self._map()[0]

    @property
    def tasks(self) -> np.ndarray:
        """(N,) int16: the task that was being done, or EVERY_TASK."""
        return self._map()[1]

    def frame(self, index: int) -> Frames:
        """Return one frame as Frames of length one."""
        return self.columns.take(slice(index, index + 1))

    def fingerprint(self) -> str:
        """Return a sha256 over the folder's name, the actions and where everything was."""
        digest = hashlib.sha256(f'{self.path.name} {self._count}'.encode())
        for column in ('actions', 'blocks', 'tool', 'scene'):
            digest.update(np.ascontiguousarray(getattr(self.columns, column)).tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_mapped': None}

    def _map(self) -> tuple[Frames, np.ndarray]:
        if self._mapped is None:
            mapped = {name: np.load(self.path / f'{name}.npy', mmap_mode='r')[:self._count]
                      for name in (*_COLUMNS, 'task')}
            self._mapped = Frames(**{name: mapped[name] for name in _COLUMNS}), mapped['task']
        return self._mapped


def _make(name: str, section: SimulatorSection, path: Path) -> None:
    """Simulate into a folder that has its name only when it is complete."""
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    partial.mkdir(parents=True)
    try:
        count = _write(name, section, partial)
        if not count:
            raise SourceError(
                f'{name}: expected the expert to be done within {section.scenes.frames} frames, '
                f'found none of {section.scenes.scenes} scenes done; raise scenes.frames to 60')
        (partial / 'count.json').write_text(json.dumps({'frames': count}))
        partial.rename(path)
    except SimulationError as error:
        raise SourceError(f'{name}: expected a simulator that renders, found: {error}') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(name: str, section: SimulatorSection, folder: Path) -> int:
    blocks = _blocks(section.scenes)
    done = track(_simulated(section, blocks), f'{name}: simulating', total=len(blocks),
                 transient=True)
    room = section.scenes.scenes * section.scenes.frames
    files: dict[str, np.ndarray] = {}
    count = 0
    for frames, tasks in done:
        columns = {**{name: getattr(frames, name) for name in _COLUMNS}, 'task': tasks}
        for column, values in columns.items():
            if column not in files:
                files[column] = np.lib.format.open_memmap(
                    folder / f'{column}.npy', 'w+', values.dtype, (room, *values.shape[1:]))
            files[column][count:count + len(values)] = values
        count += len(tasks)
    return count


def _blocks(scenes: SceneSection) -> list[tuple[int, int]]:
    """Divide the scenes into (first, count) small enough to be held in memory."""
    size = max(1, _BLOCK_FRAMES // scenes.frames)
    end = scenes.first + scenes.scenes
    return [(first, min(size, end - first)) for first in range(scenes.first, end, size)]


def _simulated(section: SimulatorSection, blocks: list[tuple[int, int]]) -> Iterator[Block]:
    sections = [section] * len(blocks)
    if section.workers == 1:
        yield from map(_simulate, sections, blocks)
        return
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(section.workers, mp_context=context) as pool:
        yield from pool.map(_simulate, sections, blocks)


def _simulate(section: SimulatorSection, block: tuple[int, int]) -> Block:
    camera = CameraConfig(name=CAMERA, size=section.size, resize='area')
    scenes, (first, count) = section.scenes, block
    if scenes.motion == 'expert':
        return _demonstrate(section, range(first, first + count), camera)
    frames = generate(SceneRange(
        seed=section.seed, first=first, count=count, frames=scenes.frames,
        motion=scenes.motion), camera)
    return frames, np.full(len(frames), EVERY_TASK, np.int16)


def _demonstrate(section: SimulatorSection, scenes: range, camera: CameraConfig) -> Block:
    """Let the expert do one task per scene; those not done in time are left out."""
    sim = TabletopSim(image_size=NATIVE_SIZE)
    parts, tasks = [label(sim, observe(sim, camera), 0).take(slice(0, 0))], []
    for scene in scenes:
        rng = np.random.default_rng((section.seed, scene))
        task = sim.reset(int(rng.integers(2**31)))
        judge, seen = TaskJudge(task, sim.state()), []
        while len(seen) < section.scenes.frames and not judge.succeeded:
            seen.append(label(sim, observe(sim, camera), scene))
            sim.apply_delta(expert_action(sim.state(), task))
            judge.update(sim.state())
        if judge.succeeded:
            parts += seen
            tasks += [TASKS.index(task)] * len(seen)
    return concatenate(parts), np.array(tasks, np.int16)
