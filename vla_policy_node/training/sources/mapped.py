"""Tables of fixed-size rows in files, memory-mapped, so that indices do not fill the memory."""

from collections.abc import Iterable
from itertools import islice
import os
from pathlib import Path

import numpy as np

_ROWS_AT_A_TIME = 4096


class MappedTable:
    """
    A read-only table of rows of one dtype; pickled as its path, mapped when first read.

    rows: (N,) of the structured dtype, backed by the file.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        """Take a file that write_table wrote; it must have at least one row."""
        self._path = path
        self._dtype = dtype
        self._rows: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """Return the mapped rows (N,)."""
        if self._rows is None:
            self._rows = np.memmap(self._path, dtype=self._dtype, mode='r')
        return self._rows

    def __len__(self) -> int:
        return self._path.stat().st_size // self._dtype.itemsize

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_rows': None}


def write_table(path: Path, dtype: np.dtype, rows: Iterable[tuple]) -> MappedTable:
    """Write rows as they come; the file has its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    rows = iter(rows)
    with partial.open('wb') as file:
        while part := list(islice(rows, _ROWS_AT_A_TIME)):
            np.array(part, dtype=dtype).tofile(file)
    partial.replace(path)
    return MappedTable(path, dtype)


def partial_path(path: Path) -> Path:
    """Return where to write a file before it gets its name; processes do not share it."""
    return path.with_name(f'{path.name}.{os.getpid()}.partial')
