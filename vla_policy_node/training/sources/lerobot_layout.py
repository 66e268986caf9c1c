"""
Where things are in a LeRobot data set: versions 2.0, 2.1 (a file per episode) and 3.0 (shared).

Reads meta/ and the names of files; knows nothing of actions or pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy_node.training.sources.records import SourceError

VERSIONS = ('v2.0', 'v2.1', 'v3.0')
_VIDEO_PATHS = {
    2: 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4',
    3: 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
}
_DOWNLOAD = 'download the data set again (a clone needs `git lfs pull`)'


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One entry of info.json: dtype as written there, shape, and whether it is a depth map."""

    dtype: str
    shape: tuple[int, ...]
    is_depth: bool

    @property
    def is_picture(self) -> bool:
        """Whether records of it are colour pictures."""
        return self.dtype in ('video', 'image') and not self.is_depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The part of a video that shows an episode: file within the data set and its start [s]."""

    path: str
    start_s: float


class Layout:
    """
    The metadata of a data set at the folder `root`; `name` begins every error.

    fps: recorded steps per second. features: by name. tasks: task index -> words. episodes:
    indices that the metadata list. Raises SourceError where something is missing or damaged.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._info = self._read_info()
        self._major = int(self._info['codebase_version'][1])
        with self.reading('meta/info.json'):
            self.fps = float(self._info['fps'])
            self.features = {key: _feature(entry) for key, entry in self._info['features'].items()}
        if not self.fps > 0.0:
            raise SourceError(f'{name}: {root}/meta/info.json: expected fps above 0, found '
                              f'{self.fps}; correct it')
        self.tasks = self._read_tasks()
        self.episodes = self._read_episodes()

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Turn what damaged files lead to into one SourceError that names the file."""
        try:
            yield
        except SourceError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
                pa.ArrowException) as error:
            found = ' '.join(f'{type(error).__name__} {error}'.split())
            raise SourceError(
                f'{self.name}: {self.root}/{file}: expected a complete file of a LeRobot data set,'
                f' found {found[:200]}; {_DOWNLOAD}') from error

    def data_files(self) -> list[str]:
        """Return the parquet files with the steps, relative to the root, in order."""
        return self._names('data/*/*.parquet', 'parquet files in data/')

    def metadata_files(self) -> list[str]:
        """Return the files of meta/ that say what records are, in order."""
        names = self._names('meta/**/*', 'files in meta/')
        return [name for name in names if 'stats' not in Path(name).name]

    def video_files(self) -> list[str]:
        """Return all videos, in order; may be none."""
        videos = self.root.glob('videos/**/*.mp4')
        return sorted(str(path.relative_to(self.root)) for path in videos)

    def clip(self, episode: int, feature: str) -> Clip:
        """Return where a video feature of an episode is."""
        template = self._info.get('video_path') or _VIDEO_PATHS[self._major]
        entry = self.episodes[episode]
        with self.reading('meta/info.json or the episodes in meta/'):
            if self._major == 2:
                chunk = episode // int(self._info.get('chunks_size', 1000))
                return Clip(start_s=0.0, path=template.format(
                    episode_chunk=chunk, episode_index=episode, video_key=feature))
            prefix = f'videos/{feature}'
            return Clip(start_s=float(entry[f'{prefix}/from_timestamp']), path=template.format(
                video_key=feature, chunk_index=int(entry[f'{prefix}/chunk_index']),
                file_index=int(entry[f'{prefix}/file_index'])))

    def _read_info(self) -> dict[str, Any]:
        path = self.root / 'meta' / 'info.json'
        if not path.is_file():
            found = 'an empty folder' if self.root.is_dir() and not any(self.root.iterdir()) else (
                'no such file' if self.root.is_dir() else 'no such folder')
            raise SourceError(f'{self.name}: expected a LeRobot data set with {path}, found '
                              f'{found}; give the folder that holds meta/, data/ and videos/')
        with self.reading('meta/info.json'):
            info = json.loads(path.read_text(encoding='utf-8'))
            version = info['codebase_version']
        if version not in VERSIONS:
            raise SourceError(f'{self.name}: {path}: expected codebase_version '
                              f'{", ".join(VERSIONS)}, found {version!r}; convert the data set')
        return info

    def _read_tasks(self) -> dict[int, str]:
        if self._major == 2:
            return {int(entry['task_index']): str(entry['task'])
                    for entry in self._json_lines('meta/tasks.jsonl', 'task_index', 'task')}
        # Pandas wrote the words as the table's index, whose column has one name or another.
        table = self._table('meta/tasks.parquet')
        words = [field.name for field in table.schema
                 if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
        if not words or 'task_index' not in table.column_names:
            raise SourceError(f'{self.name}: {self.root}/meta/tasks.parquet: expected task_index '
                              f'and a column of words, found {table.column_names}; {_DOWNLOAD}')
        return dict(zip(table['task_index'].to_pylist(), table[words[0]].to_pylist(), strict=True))

    def _read_episodes(self) -> dict[int, dict[str, Any]]:
        if self._major == 2:
            entries = self._json_lines('meta/episodes.jsonl', 'episode_index')
        else:
            entries = [row for file in self._names('meta/episodes/*/*.parquet', 'meta/episodes/')
                       for row in self._episode_table(file).to_pylist()]
        with self.reading('the episodes in meta/'):
            return {int(entry['episode_index']): entry for entry in entries}

    def _episode_table(self, file: str) -> pa.Table:
        with self.reading(file):
            names = pq.read_schema(self.root / file).names
        # Statistics are most of the file, and tasks are known from the steps.
        return self._table(file, [name for name in names if name.startswith('videos/')
                                  or name == 'episode_index'])

    def _table(self, file: str, columns: list[str] | None = None) -> pa.Table:
        with self.reading(file):
            return pq.ParquetFile(self.root / file, memory_map=True).read(columns=columns)

    def _json_lines(self, file: str, *required: str) -> list[dict[str, Any]]:
        with self.reading(file):
            lines = (self.root / file).read_text(encoding='utf-8').splitlines()
            entries = [json.loads(line) for line in lines if line.strip()]
            for entry in entries:
                for key in required:
                    entry[key]
        return entries

    def _names(self, pattern: str, wanted: str) -> list[str]:
        names = sorted(str(path.relative_to(self.root))
                       for path in self.root.glob(pattern) if path.is_file())
        if not names:
            raise SourceError(f'{self.name}: {self.root}: expected {wanted}, found none; '
                              f'{_DOWNLOAD}')
        return names


def _feature(entry: dict[str, Any]) -> Feature:
    infos = (entry.get('info') or {}, entry.get('video_info') or {})
    return Feature(
        dtype=entry['dtype'], shape=tuple(int(side) for side in entry['shape']),
        is_depth=any(info.get('is_depth_map') or info.get('video.is_depth_map') for info in infos))
