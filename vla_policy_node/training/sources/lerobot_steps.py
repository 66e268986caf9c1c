"""The parquet files of a LeRobot data set: columns of numbers for all steps, single pictures."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vla_policy_node.image_decoding import ImageError
from vla_policy_node.training.sources.lerobot_layout import Layout
from vla_policy_node.training.sources.records import SourceError

_KEYS = ('episode_index', 'frame_index', 'task_index')
_PLACES = {'episodes': 'episode_index', 'frame': 'frame_index', 'task': 'task_index',
           'file': 'file', 'row': 'row'}


class StepTable:
    """
    N steps, episode after episode.

    files: parquet files. places: (N,) int64 columns of where each step is: the data set's own
    episodes, frame and task, and file (a place in `files`) and row within it.
    """

    def __init__(self, files: Sequence[str], parts: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.files = tuple(files)
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        order = np.lexsort((columns['frame_index'], columns['episode_index']))
        sizes = [len(part['episode_index']) for part in parts]
        columns['file'] = np.repeat(np.arange(len(sizes)), sizes)
        columns['row'] = np.concatenate([np.arange(size) for size in sizes])
        self._columns = {key: column[order] for key, column in columns.items()}
        self.places = {name: self._columns.pop(key) for name, key in _PLACES.items()}

    def by_episode(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the feature columns (n, D) of one episode after the other."""
        episodes = self.places['episodes']
        starts = np.flatnonzero(np.diff(episodes)) + 1
        for start, stop in zip((0, *starts), (*starts, len(episodes)), strict=True):
            yield {key: column[start:stop] for key, column in self._columns.items()}


def read_steps(layout: Layout, features: Sequence[str]) -> StepTable:
    """Read the numeric `features` of all steps; SourceError naming the file that is unusable."""
    files = layout.data_files()
    table = StepTable(files, [_read_file(layout, file, features) for file in files])
    if not len(table.places['episodes']):
        raise SourceError(f'{layout.name}: {layout.root}: expected steps in data/, found none; '
                          'record episodes first')
    listed, stored = set(layout.episodes), set(np.unique(table.places['episodes']).tolist())
    if listed != stored:
        odd = min(listed ^ stored)
        place, other = ('meta/', 'data/') if odd in listed else ('data/', 'meta/')
        raise SourceError(
            f'{layout.name}: {layout.root}: expected the same episodes in meta/ and data/, found '
            f'episode {odd} in {place} but not in {other}; download the data set again')
    return table


def _read_file(layout: Layout, file: str, features: Sequence[str]) -> dict[str, np.ndarray]:
    wanted = [*_KEYS, *features]
    with layout.reading(file):
        with pq.ParquetFile(layout.root / file, memory_map=True) as parquet:
            missing = sorted(set(wanted) - set(parquet.schema_arrow.names))
            if missing:
                raise SourceError(
                    f'{layout.name}: {layout.root}/{file}: expected the columns {wanted}, found '
                    f'no {missing[0]}; convert the data set again')
            table = parquet.read(columns=wanted)
        columns = {key: table[key].to_numpy().astype(np.int64) for key in _KEYS}
        columns.update((key, _matrix(layout, file, key, table[key])) for key in features)
    return columns


def _matrix(layout: Layout, file: str, key: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of lists or of plain numbers as (n, D) float64; missing ones are NaN."""
    width = layout.features[key].shape[0]
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != width)
        if odd.size:
            raise SourceError(
                f'{layout.name}: {layout.root}/{file}: row {odd[0]}: expected {width} numbers in '
                f'{key}, found {lengths[odd[0]]}; repair the file')
        values = values.flatten()
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, width)


class PictureColumn:
    """Encoded pictures of one column of a parquet file; the row group last used is kept."""

    def __init__(self, root: Path, file: str, column: str) -> None:
        self._root = root
        self._parquet = pq.ParquetFile(root / file, memory_map=True)
        self._column = column
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        self._group, self._pictures = -1, None

    def read(self, row: int) -> np.ndarray:
        """Return the (B,) uint8 encoded bytes of a row; ImageError where there are none."""
        group = int(np.searchsorted(self._starts, row, side='right')) - 1
        try:
            if group != self._group:
                self._pictures = self._parquet.read_row_group(group, [self._column])[self._column]
                self._group = group
            return self._bytes(self._pictures[row - int(self._starts[group])].as_py())
        except (OSError, pa.ArrowException) as error:
            raise ImageError(f'expected a readable picture, found {error}') from error

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()

    def _bytes(self, picture: Any) -> np.ndarray:
        if not isinstance(picture, dict):
            raise ImageError(
                f'expected bytes and path of a picture, found {type(picture).__name__}')
        data = picture.get('bytes')
        if data is None:
            data = (self._root / str(picture.get('path'))).read_bytes()
        return np.frombuffer(data, np.uint8)
