"""
The state of a run on disk: written whole or not at all, the last two kept.

Knows nothing of what is in it.
"""

from collections.abc import Mapping
import errno
import os
from pathlib import Path
import re
from typing import Any

import torch

_NAME = re.compile(r'state-(\d{9})\.pt')
_KEPT = 2


class StateFolder:
    """States by step in one folder; a kill at any time leaves a complete one behind."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for leftover in folder.glob('*.partial'):
            leftover.unlink(missing_ok=True)  # another process may have been faster

    def steps(self) -> list[int]:
        """Return the steps of the states that are there, ascending."""
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, content: Mapping[str, Any]) -> None:
        """Write a state; OSError where the disk does not take it, and the older ones stay."""
        path = self._path(step)
        partial = path.with_suffix('.partial')
        try:
            _write(partial, content)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, RuntimeError):  # torch's zip writer after a failed write
                raise _cause(error) from error
            raise
        partial.replace(path)
        _sync(self._folder)
        for old in self.steps()[:-_KEPT]:
            self._path(old).unlink()

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None where there is none."""
        for step in reversed(self.steps()):
            try:
                return torch.load(self._path(step), map_location='cpu', weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError):
                continue  # damaged after it was written; the one before it is as good
        return None

    def _path(self, step: int) -> Path:
        return self._folder / f'state-{step:09d}.pt'


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with path.open('wb') as stream:
        torch.save(dict(content), stream)
        stream.flush()
        os.fsync(stream.fileno())


def _cause(error: BaseException) -> OSError:
    """Return the OSError that lies behind another error, or one that stands for it."""
    behind = error.__context__
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__context__
    return behind or OSError(errno.EIO, f'the state could not be written: {error}')


def _sync(folder: Path) -> None:
    """Make a rename survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
