"""Rows of parquet files by number: row groups are read whole, the last few are kept."""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError

_KEPT_GROUPS = 8
_KEPT_BYTES = 2 ** 28


class RowGroups:
    """
    The rows of several files, counted through; for one thread, others take a pickled copy.

    At most 8 row groups and 256 MiB of them are kept, but always the last one.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        """Read the footers of the files; columns are the ones that `row` reads."""
        self._paths = list(paths)
        self._columns = list(columns)
        places, counts = [], []
        for number, path in enumerate(self._paths):
            metadata = open_parquet(path).metadata
            for group in range(metadata.num_row_groups):
                places.append((number, group))
                counts.append(metadata.row_group(group).num_rows)
        self._places = places
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.schema = open_parquet(self._paths[0]).schema_arrow
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def kept(self) -> list[int]:
        """The row groups in memory, counted over all files, the least recently used first."""
        return list(self._kept)

    def row(self, number: int) -> tuple[dict[str, Any], str]:
        """Return the columns of a row and where it stands; RecordError if it cannot be read."""
        chosen = int(np.searchsorted(self._ends, number, side='right'))
        start = int(self._ends[chosen - 1]) if chosen else 0
        file, group = self._places[chosen]
        where = f'{self._paths[file]}, row group {group}, row {number - start}'
        try:
            table = self._kept_group(chosen)
            return table.slice(number - start, 1).to_pylist()[0], where
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = ' '.join(str(error).split())
            raise RecordError(f'{where}: expected readable data, found damage: {reason}; '
                              'fetch the file again') from error

    def scan(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number, columns) of every row, one row group in memory at a time."""
        start = 0
        for (file, group), end in zip(self._places, self._ends.tolist(), strict=True):
            rows = self._scan_group(file, group, columns) if columns else [{}] * (end - start)
            yield from enumerate(rows, start=start)
            start = end

    def _scan_group(self, file: int, group: int, columns: Sequence[str]) -> list[dict]:
        try:
            table = open_parquet(self._paths[file]).read_row_group(group, columns=list(columns))
            return table.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SourceError(f'{self._paths[file]}, row group {group}: expected readable data, '
                              f'found damage: {" ".join(str(error).split())}; fetch the file '
                              'again') from error

    def _kept_group(self, chosen: int) -> pa.Table:
        """Return a row group from memory or file; the one unused for longest makes room."""
        if chosen not in self._kept:
            file, group = self._places[chosen]
            self._kept[chosen] = open_parquet(self._paths[file]).read_row_group(
                group, columns=self._columns)
        self._kept.move_to_end(chosen)
        while len(self._kept) > 1 and (
                len(self._kept) > _KEPT_GROUPS
                or sum(table.nbytes for table in self._kept.values()) > _KEPT_BYTES):
            self._kept.popitem(last=False)
        return self._kept[chosen]

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_kept': OrderedDict()}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file, memory-mapped; SourceError where it is not a parquet file."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f'{path}: expected a parquet file, found '
                          f'{" ".join(str(error).split())}') from error


def footer_digest(path: Path) -> bytes:
    """Return size and footer of a parquet file: what tells it from another, without its rows."""
    size = path.stat().st_size
    with path.open('rb') as file:
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), 'little')
        file.seek(size - 8 - length)
        return size.to_bytes(8, 'little') + file.read(length)
