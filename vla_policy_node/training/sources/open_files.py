"""Keeps a few files open: opening a video or a bag costs more than reading one frame of it."""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Hashable
import os
from typing import Any
from typing import Generic
from typing import TypeVar

Handle = TypeVar('Handle')


class OpenFiles(Generic[Handle]):
    """
    Handles by key, the least recently used one closed when there are more than `limit`.

    open_file: key -> handle with a close(). Every process opens its own: handles are neither
    pickled nor used after a fork, where they would share their place in the file.
    """

    def __init__(self, open_file: Callable[[Any], Handle], limit: int) -> None:
        self._open_file = open_file
        self._limit = limit
        self._forget()

    def __call__(self, key: Hashable) -> Handle:
        """Return the handle of a key, opened now where it is not."""
        if self._process != os.getpid():
            # Kept, not closed: the parent process may still need what closing would remove.
            self._inherited = self._handles
            self._forget()
        if key not in self._handles:
            self._handles[key] = self._open_file(key)
            if len(self._handles) > self._limit:
                self._handles.popitem(last=False)[1].close()
        self._handles.move_to_end(key)
        return self._handles[key]

    def _forget(self) -> None:
        self._process = os.getpid()
        self._handles: OrderedDict[Hashable, Handle] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {'_open_file': self._open_file, '_limit': self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
