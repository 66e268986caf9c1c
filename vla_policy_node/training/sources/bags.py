"""
Demonstrations from bags of our own nodes: what the policy saw, was told and had carried out.

Of every chunk the steps count that began before the next chunk came, at least the first. Each is
a record, with the newest picture that is not newer than its step: the chunk's observation stamp,
and a period more for every further step.
"""

from collections.abc import Mapping
from copy import copy
import glob
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from vla_policy_node.images import ImageError
from vla_policy_node.recordings import IMAGE_TYPES
from vla_policy_node.recordings import read_image
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError
from vla_policy_node.training.sources.bag_steps import BagSteps
from vla_policy_node.training.sources.bag_steps import read_bag_steps
from vla_policy_node.training.sources.config import BagsSection
from vla_policy_node.training.sources.open_files import OpenFiles
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.steps import build_record
from vla_policy_node.training.sources.steps import Steps

_OPEN_BAGS = 16
_SUFFIXES = ('.mcap', '.db3')


class BagSource:
    """A RobotSource over bags; see BagsSection."""

    kind: Literal['robot'] = 'robot'

    def __init__(
        self, name: str, section: BagsSection, *, horizon: int, period_s: float, cache: Path,
    ) -> None:
        self.name = name
        self._section = section
        self._horizon = horizon
        self._recordings: list[Recording] = []
        self._bags = [self._read(path, period_s) for path in self._paths()]
        self._starts = np.cumsum([0, *(len(bag) for bag in self._bags)])
        if not self._starts[-1]:
            raise SourceError(f'{name}: expected chunks of {section.actions} in '
                              f'{", ".join(section.paths)}, found none; record while the policy '
                              'is carrying out an instruction')
        first = np.cumsum([0, *(bag.episode_count for bag in self._bags)])
        self._steps = Steps(
            cache, actions=np.concatenate([bag.actions for bag in self._bags]),
            episodes=np.concatenate([bag.episodes + start for bag, start in
                                     zip(self._bags, first[:-1], strict=True)]))
        if not len(self._steps.usable()):
            raise SourceError(f'{name}: expected finite actions in {section.actions}, found none '
                              f'in {len(self._steps)} steps; record again')
        if not section.instruction and not any(bag.is_told for bag in self._bags):
            raise SourceError(f'{name}: expected instructions on {section.instruction_topic}, '
                              'found empty ones only; set `instruction` of the source')
        self._files = OpenFiles(self._open, _OPEN_BAGS)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: a new one per bag, instruction, long pause and terminating chunk."""
        return self._steps.episodes

    def actions(self) -> np.ndarray:
        """Return (M, 7) float64 canonical actions, unusable steps left out."""
        return self._steps.usable()

    def __getitem__(self, index: int) -> RobotRecord:
        """Return the step at `index`, its pictures read and decoded now."""
        index = range(len(self))[index]
        place = int(np.searchsorted(self._starts, index, side='right')) - 1
        bag, step = self._bags[place], index - int(self._starts[place])
        where = f'{self.name}: {self._recordings[place].path}, chunk {bag.chunk[step]}'
        return build_record(
            where, self._steps, index, horizon=self._horizon, plan=bag.plan(step),
            instruction=self._section.instruction or bag.instruction(step),
            images=lambda: self._images(where, place, step))

    def fingerprint(self) -> str:
        """Return a sha256 over names and sizes of the files, times, actions and words."""
        digest = hashlib.sha256()
        for recording, bag in zip(self._recordings, self._bags, strict=True):
            path = recording.path
            for file in sorted(path.iterdir()) if path.is_dir() else (path,):
                digest.update(f'{path.name}/{file.name} {file.stat().st_size}\n'.encode())
            digest.update(repr(bag.words).encode())
            for column in (bag.seen_ns, bag.pictures, bag.actions, bag.episodes, bag.word):
                digest.update(np.ascontiguousarray(column).tobytes())
        digest.update(repr((self._section.cameras, self._section.instruction)).encode())
        return digest.hexdigest()

    def _paths(self) -> list[Path]:
        paths: list[Path] = []
        for pattern in self._section.paths:
            found = [Path(text) for text in sorted(glob.glob(pattern))]
            bags = [path for path in found if path.suffix in _SUFFIXES or (
                path.is_dir() and (path / 'metadata.yaml').is_file())]
            if not bags:
                raise SourceError(
                    f'{self.name}: expected bags at {pattern} (folders with metadata.yaml, .mcap '
                    f'or .db3 files), found {len(found)} other paths; correct paths')
            paths += bags
        return list(dict.fromkeys(paths))

    def _read(self, path: Path, period_s: float) -> BagSteps:
        section = self._section
        try:
            recording = Recording(path)
            for topic in section.cameras.values():
                recording.require(topic, IMAGE_TYPES)
            steps = read_bag_steps(recording, section, self.name, period_s)
        except RecordingError as error:
            raise SourceError(f'{self.name}: {error}') from error
        recording.close()
        self._recordings.append(recording)
        return steps

    def _open(self, place: int) -> Recording:
        return copy(self._recordings[place])

    def _images(self, where: str, place: int, step: int) -> Mapping[str, np.ndarray]:
        bag = self._bags[place]
        seen_ns = int(bag.seen_ns[step])
        return {camera: self._image(where, place, topic, int(picture), seen_ns)
                for (camera, topic), picture in
                zip(self._section.cameras.items(), bag.pictures[step], strict=True)}

    def _image(
        self, where: str, place: int, topic: str, picture: int, seen_ns: int,
    ) -> np.ndarray:
        try:
            recording = self._files(place)
            (index,) = recording.index(topic)
            age_s = (seen_ns - int(index.stamp_ns[picture])) * 1e-9 if picture >= 0 else np.inf
            if age_s > self._section.max_gap_s:
                raise RecordError(
                    f'{where}: expected a picture of {topic} of the {self._section.max_gap_s:g} s '
                    f'before {seen_ns} ns, found {"none" if picture < 0 else f"{age_s:.1f} s"}; '
                    'record the camera with the chunks, or go on without this step')
            return read_image(recording.read(topic, picture))
        except (RecordingError, ImageError) as error:
            raise RecordError(f'{where}: {topic}: {error}; or go on without this step') from error
