"""Arrays in files under a name that is their content, memory-mapped where they are read."""

from collections.abc import Mapping
import hashlib
import os
from pathlib import Path
import shutil

import numpy as np


class MappedColumns:
    """
    Read-only arrays by name; pickled as the folder they are in.

    Written into a folder of `cache` unless it is there already, so that worker processes share
    one copy. digest: sha256 of all of them.
    """

    def __init__(self, cache: Path, columns: Mapping[str, np.ndarray]) -> None:
        self.digest = _digest(columns)
        self._folder = cache / f'columns-{self.digest[:16]}'
        self._mapped: dict[str, np.ndarray] = {}
        if not self._folder.is_dir():
            _write(self._folder, columns)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array, mapped."""
        if name not in self._mapped:
            column = np.load(self._folder / f'{name}.npy', mmap_mode='r')
            self._mapped[name] = column.view(np.ndarray)
        return self._mapped[name]

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_mapped': {}}


def _digest(columns: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, column in sorted(columns.items()):
        digest.update(f'{name} {column.dtype} {column.shape}'.encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _write(folder: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Give the folder its name only when it is complete; another process may be faster."""
    partial = folder.with_name(f'{folder.name}.{os.getpid()}.partial')
    partial.mkdir(parents=True)
    try:
        for name, column in columns.items():
            np.save(partial / f'{name}.npy', column)
        if not folder.is_dir():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
