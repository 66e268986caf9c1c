"""
Demonstrations from a LeRobot data set on disk, of version 2.0, 2.1 or 3.0.

Opening reads metadata and the action columns; pictures are read one at a time.
"""

from collections.abc import Mapping
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from vla_policy_node.image_decoding import decode_compressed
from vla_policy_node.image_decoding import ImageError
from vla_policy_node.training.sources.canonical import canonical_actions
from vla_policy_node.training.sources.config import LeRobotSection
from vla_policy_node.training.sources.lerobot_layout import Layout
from vla_policy_node.training.sources.lerobot_steps import PictureColumn
from vla_policy_node.training.sources.lerobot_steps import read_steps
from vla_policy_node.training.sources.open_files import OpenFiles
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.steps import build_record
from vla_policy_node.training.sources.steps import Steps
from vla_policy_node.training.sources.videos import Video
from vla_policy_node.training.sources.videos import VideoError

_OPEN_VIDEOS = 8
_OPEN_COLUMNS = 3
# Of a recorded step: how far from it a frame may be shown and still be its picture.
_TOLERANCE = 0.5


class LeRobotSource:
    """A RobotSource over one data set; see LeRobotSection."""

    kind: Literal['robot'] = 'robot'

    def __init__(
        self, name: str, section: LeRobotSection, *, horizon: int, period_s: float, cache: Path,
    ) -> None:
        self.name = name
        self._section = section
        self._horizon = horizon
        self._layout = Layout(name, section.path)
        stride = self._stride(period_s)
        self._check_features()
        table = read_steps(self._layout, list(section.actions.widths))
        self._files = table.files
        actions = [canonical_actions(columns, section.actions, fps=self._layout.fps, stride=stride)
                   for columns in table.by_episode()]
        self._steps = Steps(cache, actions=np.concatenate(actions), stride=stride, **table.places)
        if not len(self._steps.usable()):
            raise SourceError(f'{name}: {section.path}: expected finite actions, found none in '
                              f'{len(self._steps)} steps; check the indices under actions')
        if not section.instruction and not any(self._layout.tasks.values()):
            raise SourceError(f'{name}: {section.path}: expected tasks in words in meta/, found '
                              'none; set `instruction` of the source')
        self._check_videos()
        self._videos = OpenFiles(self._open_video, _OPEN_VIDEOS)
        self._columns = OpenFiles(self._open_column, _OPEN_COLUMNS)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the data set's own episode index of each step."""
        return self._steps.episodes

    def actions(self) -> np.ndarray:
        """Return (M, 7) float64 canonical actions, unusable steps left out."""
        return self._steps.usable()

    def __getitem__(self, index: int) -> RobotRecord:
        """Return the step at `index`, its pictures decoded now."""
        index = range(len(self))[index]
        return build_record(
            self._where(index), self._steps, index, horizon=self._horizon,
            instruction=self._layout.tasks.get(self._place('task', index)) or (
                self._section.instruction or ''),
            images=lambda: self._images(index))

    def fingerprint(self) -> str:
        """Return a sha256 over names and sizes of all files, the metadata and the actions."""
        digest = hashlib.sha256()
        layout = self._layout
        for name in (*layout.data_files(), *layout.video_files()):
            digest.update(f'{name} {(layout.root / name).stat().st_size}\n'.encode())
        for name in layout.metadata_files():
            digest.update(name.encode() + (layout.root / name).read_bytes())
        digest.update(repr((
            self._section.cameras, self._section.instruction, self._steps.digest())).encode())
        return digest.hexdigest()

    def _where(self, index: int) -> str:
        return (f'{self.name}: {self._layout.root}/{self._file(index)}, episode '
                f'{self._place("episodes", index)}, frame {self._place("frame", index)}')

    def _place(self, column: str, index: int) -> int:
        return int(self._steps.column(column)[index])

    def _file(self, index: int) -> str:
        return self._files[self._place('file', index)]

    def _images(self, index: int) -> Mapping[str, np.ndarray]:
        return {camera: self._image(feature, index)
                for camera, feature in self._section.cameras.items()}

    def _image(self, feature: str, index: int) -> np.ndarray:
        if self._layout.features[feature].dtype == 'video':
            return self._from_video(feature, index)
        try:
            column = self._columns((self._file(index), feature))
            return decode_compressed(column.read(self._place('row', index)), feature)
        except ImageError as error:
            raise RecordError(f'{self._where(index)}: {feature}: {error}; repair the file, or '
                              'go on without this step') from error

    def _from_video(self, feature: str, index: int) -> np.ndarray:
        clip = self._layout.clip(self._place('episodes', index), feature)
        fps = self._layout.fps
        try:
            return self._videos(clip.path).frame_at(
                clip.start_s + self._place('frame', index) / fps, _TOLERANCE / fps)
        except VideoError as error:
            raise RecordError(f'{self._where(index)}: {clip.path}: {error}; download the '
                              'video again, or go on without this step') from error

    def _open_video(self, path: str) -> Video:
        return Video(self._layout.root / path)

    def _open_column(self, key: tuple[str, str]) -> PictureColumn:
        return PictureColumn(self._layout.root, *key)

    def _stride(self, period_s: float) -> int:
        steps = period_s * self._layout.fps
        if round(steps) < 1 or abs(steps - round(steps)) > 0.01 * steps:
            fitting = ', '.join(f'{n / self._layout.fps:.4g}' for n in (1, 2, 3))
            raise SourceError(
                f'{self.name}: {self._section.path} has {self._layout.fps:g} steps a second, of '
                f'which a period of {period_s:g} s is {steps:.3g}; set action.period_s to a '
                f'multiple of one step ({fitting}, ...)')
        return round(steps)

    def _check_features(self) -> None:
        features = self._layout.features
        pictures = [key for key, feature in features.items() if feature.is_picture]
        for wanted in self._section.cameras.values():
            if wanted not in pictures:
                raise SourceError(
                    f'{self.name}: expected cameras to name features of {self._section.path}, '
                    f'found {wanted!r}; its pictures are: {", ".join(pictures) or "none"}')
        numbers = {key: feature.shape[0] for key, feature in features.items()
                   if not feature.is_picture and len(feature.shape) == 1}
        for wanted, width in self._section.actions.widths.items():
            if numbers.get(wanted, 0) < width:
                known = ', '.join(f'{key} ({size})' for key, size in numbers.items())
                found = f'{numbers[wanted]}' if wanted in numbers else 'no such feature'
                raise SourceError(
                    f'{self.name}: expected {wanted!r} of {self._section.path} to have at least '
                    f'{width} numbers, found {found}; its features are: {known}')

    def _check_videos(self) -> None:
        """Find missing files now; damaged ones are found, one record at a time, when read."""
        root = self._layout.root
        for feature in self._section.cameras.values():
            if self._layout.features[feature].dtype != 'video':
                continue
            paths = {self._layout.clip(int(episode), feature).path
                     for episode in np.unique(self._steps.episodes)}
            missing = sorted(path for path in paths if not (root / path).is_file())
            if missing:
                raise SourceError(
                    f'{self.name}: {root}: expected {len(paths)} videos of {feature}, found '
                    f'{len(paths) - len(missing)}; download {missing[0]} and the like')
