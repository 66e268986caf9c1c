"""
Writes a LeRobot data set of version 3.0: parquet, mp4 and metadata, as lerobot 0.4 reads them.

Pictures go into the videos one by one and numbers at the end of their episode, so memory does not
grow with pictures; of a step 28 bytes are kept for the statistics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import partial
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.training.convert import column_statistics
from vla_policy_node.training.convert.column_statistics import PictureStatistics
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.training.convert.mp4 import find_encoder
from vla_policy_node.training.convert.mp4 import Mp4File
from vla_policy_node.training.convert.rolled_files import CHUNK_FILES
from vla_policy_node.training.convert.rolled_files import Place
from vla_policy_node.training.convert.rolled_files import RolledFiles
from vla_policy_node.training.convert.tables import step_columns
from vla_policy_node.training.convert.tables import step_table
from vla_policy_node.training.convert.tables import TableFile
from vla_policy_node.training.convert.tables import write_tasks

PICTURES = 'observation.images.'
ACTION_UNITS = ('m', 'm', 'm', 'rad', 'rad', 'rad', '0 closed to 1 open')
# Of a file, mebibytes; LeRobot's own.
DATA_LIMIT_MB = 100
VIDEO_LIMIT_MB = 200

# LeRobot's places.
_DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
_VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
_EPISODES = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'

# Episodes that are written together: with few, the descriptions of 60 columns outweigh them.
_ROWS = 100

Size = tuple[int, int]


class MisfitError(ConvertError):
    """A frame has other cameras than the first, or pictures of another size."""


@dataclass(slots=True, kw_only=True)
class _Camera:
    """What is kept of a camera over all episodes; size: (height, width)."""

    size: Size
    files: RolledFiles[Mp4File]
    statistics: PictureStatistics = field(default_factory=PictureStatistics)


@dataclass(slots=True, kw_only=True)
class _Take:
    """A camera's part in the episode that is being written; start: its first frame's number."""

    place: Place[Mp4File]
    start: int
    statistics: PictureStatistics = field(default_factory=PictureStatistics)


class LeRobotWriter:
    """
    A data set of `fps` steps a second in the new folder `root`, episode after episode.

    The first frame says which cameras there are and how large their pictures. limit_mb: of a
    video file and of a parquet file. Raises ConvertError without an encoder.
    """

    def __init__(
        self, root: Path, *, fps: int, video_limit_mb: float = VIDEO_LIMIT_MB,
        data_limit_mb: float = DATA_LIMIT_MB,
    ) -> None:
        self._root = root
        self._fps = fps
        self._encoder = find_encoder()
        self._limits_mb = {'data_files_size_in_mb': data_limit_mb,
                           'video_files_size_in_mb': video_limit_mb}
        self._data = RolledFiles(root, _DATA, data_limit_mb, TableFile)
        self._rows = RolledFiles(root, _EPISODES, data_limit_mb, TableFile)
        self._cameras: dict[str, _Camera] = {}
        self._tasks: dict[str, int] = {}
        self._written: list[np.ndarray] = []
        self._task_of: list[int] = []
        self._frames = 0
        self._pending: list[dict[str, Any]] = []
        self._takes: dict[str, _Take] = {}
        self._actions: list[np.ndarray] = []

    @property
    def episodes(self) -> int:
        """How many episodes are complete."""
        return len(self._written)

    @property
    def frames(self) -> int:
        """How many frames the complete episodes have."""
        return self._frames

    @property
    def cameras(self) -> dict[str, Size]:
        """The cameras with (height, width) of their pictures; none before the first frame."""
        return {name: camera.size for name, camera in self._cameras.items()}

    def add(self, images: Mapping[str, np.ndarray], action: np.ndarray, *, expected: int) -> None:
        """
        Append a frame to the current episode: (H, W, 3) uint8 pictures and a (7,) action.

        expected: how many frames the episode will have, at the first of them. Raises MisfitError
        where cameras or sizes are not those of the first frame; nothing is appended then.
        """
        self._check(images)
        if not self._actions:
            self._takes = {name: self._take(camera, expected)
                           for name, camera in self._cameras.items()}
        for name, take in self._takes.items():
            take.place.file.add(images[name])
            take.statistics.add(images[name])
        self._actions.append(np.asarray(action, np.float32))

    def end_episode(self, instruction: str) -> None:
        """Complete the episode, if any frame was added."""
        if not self._actions:
            return
        actions = np.stack(self._actions)
        task = self._tasks.setdefault(instruction, len(self._tasks))
        columns = step_columns(
            actions, fps=self._fps, episode=self.episodes, first=self._frames, task=task)
        place = self._data.for_episode(len(actions))
        place.file.append(step_table(columns))
        self._add_row(instruction, columns, place)
        for name, take in self._takes.items():
            self._cameras[name].statistics.include(take.statistics)
        self._written.append(actions)
        self._task_of.append(task)
        self._frames += len(actions)
        self._actions = []

    def finish(self, conversion: Mapping[str, Any]) -> None:
        """
        Write what remains, `conversion` as meta/conversion.json (where the data come from) too.

        Raises ConvertError where there is no episode.
        """
        if not self._written:
            raise ConvertError('expected episodes of at least one frame, found none')
        if self._pending:
            self._write_rows()
        for files in (self._data, self._rows, *(c.files for c in self._cameras.values())):
            files.close()
        meta = self._root / 'meta'
        write_tasks(meta / 'tasks.parquet', tuple(self._tasks))
        for name, content in (('info', self._info()), ('stats', self._statistics()),
                              ('conversion', conversion)):
            (meta / f'{name}.json').write_text(
                json.dumps(content, indent=4, ensure_ascii=False) + '\n', encoding='utf-8')

    def _check(self, images: Mapping[str, np.ndarray]) -> None:
        sizes = {name: picture.shape[:2] for name, picture in images.items()}
        if not self._cameras:
            self._cameras = {name: self._camera(name, size) for name, size in sizes.items()}
        if sizes != self.cameras:
            raise MisfitError(f'expected pictures of {_sizes(self.cameras)}, as in the first '
                               f'frame, found {_sizes(sizes)}')

    def _camera(self, name: str, size: Size) -> _Camera:
        return _Camera(size=size, files=RolledFiles(
            self._root, _VIDEO.replace('{video_key}', PICTURES + name),
            self._limits_mb['video_files_size_in_mb'],
            partial(Mp4File, encoder=self._encoder, fps=self._fps, size=size)))

    def _take(self, camera: _Camera, frames: int) -> _Take:
        place = camera.files.for_episode(frames)
        return _Take(place=place, start=place.file.rows)

    def _add_row(
        self, instruction: str, columns: Mapping[str, np.ndarray], data: Place[TableFile],
    ) -> None:
        count = len(self._actions)
        row: dict[str, Any] = {
            'episode_index': self.episodes, 'tasks': [instruction], 'length': count,
            'data/chunk_index': data.chunk, 'data/file_index': data.number,
            'dataset_from_index': self._frames, 'dataset_to_index': self._frames + count}
        for name, take in self._takes.items():
            key = f'videos/{PICTURES}{name}'
            row |= {f'{key}/chunk_index': take.place.chunk,
                    f'{key}/file_index': take.place.number,
                    f'{key}/from_timestamp': take.start / self._fps,
                    f'{key}/to_timestamp': (take.start + count) / self._fps}
        row |= column_statistics.flattened({
            name: column_statistics.of_numbers(column) for name, column in columns.items()})
        row |= column_statistics.flattened({
            PICTURES + name: take.statistics.result() for name, take in self._takes.items()})
        self._pending.append(row)
        if len(self._pending) == _ROWS:
            self._write_rows()

    def _write_rows(self) -> None:
        place = self._rows.for_episode(len(self._pending))
        where = {'meta/episodes/chunk_index': place.chunk,
                 'meta/episodes/file_index': place.number}
        rows, self._pending = [row | where for row in self._pending], []
        place.file.append(pa.Table.from_pylist(rows, schema=place.file.schema))

    def _statistics(self) -> dict[str, column_statistics.Statistics]:
        """Return the statistics of all steps, their columns made again one after the other."""
        counts = [len(actions) for actions in self._written]
        frame = np.concatenate([np.arange(count) for count in counts])
        columns = {
            'action': np.concatenate(self._written),
            'timestamp': (frame / self._fps)[:, None], 'frame_index': frame[:, None],
            'episode_index': np.repeat(np.arange(len(counts)), counts)[:, None],
            'index': np.arange(self._frames)[:, None],
            'task_index': np.repeat(self._task_of, counts)[:, None]}
        return {name: column_statistics.of_numbers(column) for name, column in columns.items()} | {
            PICTURES + name: camera.statistics.result() for name, camera in self._cameras.items()}

    def _info(self) -> dict[str, Any]:
        number = {'dtype': 'int64', 'shape': [1], 'names': None}
        pictures = {PICTURES + name: {
            'dtype': 'video', 'shape': [*camera.size, 3], 'names': ['height', 'width', 'channels'],
            'info': self._encoder.describe(camera.size, self._fps)}
            for name, camera in self._cameras.items()}
        return {
            'codebase_version': 'v3.0', 'robot_type': None, 'total_episodes': self.episodes,
            'total_frames': self._frames, 'total_tasks': len(self._tasks),
            'chunks_size': CHUNK_FILES, **self._limits_mb, 'fps': self._fps,
            'splits': {'train': f'0:{self.episodes}'}, 'data_path': _DATA, 'video_path': _VIDEO,
            'features': {
                'action': {'dtype': 'float32', 'shape': [ACTION_DIM], 'names': list(DIM_NAMES),
                           'units': list(ACTION_UNITS)},
                **pictures, 'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
                'frame_index': number, 'episode_index': number, 'index': number,
                'task_index': number}}


def _sizes(sizes: Mapping[str, Size]) -> str:
    return ', '.join(f'{name} {size[0]}x{size[1]}' for name, size in sizes.items()) or 'no camera'
