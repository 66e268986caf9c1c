"""
Files of a LeRobot data set, file-000, file-001 and so on, a new one where one would be too large.

Knows nothing of what is in them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic
from typing import Protocol
from typing import TypeVar

CHUNK_FILES = 1000
MEBIBYTE = 2 ** 20


class GrowingFile(Protocol):
    """A file that is being written: bytes and rows (or frames) so far."""

    size: int
    rows: int

    def close(self) -> None:
        """Complete the file."""


File = TypeVar('File', bound=GrowingFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(Generic[File]):
    """Where an episode goes: chunk and file number, and the open file."""

    chunk: int
    number: int
    file: File


class RolledFiles(Generic[File]):
    """
    Opens one file after the other.

    template: path relative to `root` with {chunk_index} and {file_index}. limit_mb: mebibytes at
    which a file ends; only an episode that is larger alone exceeds it.
    """

    def __init__(
        self, root: Path, template: str, limit_mb: float, open_file: Callable[[Path], File],
    ) -> None:
        self._root = root
        self._template = template
        self._limit = limit_mb * MEBIBYTE
        self._open_file = open_file
        self._opened = 0
        self._file: File | None = None

    def for_episode(self, rows: int) -> Place[File]:
        """Return where an episode of so many rows goes, judged by the rows written so far."""
        file = self._file
        if file is not None and file.rows and (
                file.size * (1.0 + rows / file.rows) >= self._limit):
            file.close()
            file = None
        if file is None:
            chunk, number = divmod(self._opened, CHUNK_FILES)
            path = self._root / self._template.format(chunk_index=chunk, file_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = file = self._open_file(path)
            self._opened += 1
        chunk, number = divmod(self._opened - 1, CHUNK_FILES)
        return Place(chunk=chunk, number=number, file=file)

    def close(self) -> None:
        """Complete the last file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
