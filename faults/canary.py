"""Proof that hostile files were not run: payloads that leave a trace, and a watch for them."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import pickle
import sys
from typing import Any

# What loading a checkpoint has no business with.
_FORBIDDEN = ('pickle.find_class', 'os.system', 'os.exec', 'os.posix_spawn', 'subprocess.Popen',
              'socket.connect', 'socket.getaddrinfo', 'urllib.Request')


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._trace),)


def pickled(trace: Path) -> bytes:
    """Return a pickle that leaves a trace when it is loaded."""
    return pickle.dumps(Payload(trace))


def module_text(trace: Path) -> str:
    """Return Python code that leaves a trace when it is imported."""
    return f'import os\nos.makedirs({str(trace)!r}, exist_ok=True)\n'


class Watch:
    """
    Sees what Python's audit hooks tell of unpickling, processes, network, code and files.

    There is one per process, because hooks cannot be taken away.
    """

    _hooked = False
    _active: 'Watch | None' = None

    def __init__(self, folder: Path, outside: Path) -> None:
        self._folder = str(folder)
        self._outside = str(outside)
        self.seen: list[str] = []

    @classmethod
    @contextmanager
    def over(cls, folder: Path, outside: Path) -> Iterator['Watch']:
        """
        Watch while the context lasts.

        :param folder: no code from there may be run. outside: nothing there may be opened.
        """
        if not cls._hooked:
            sys.addaudithook(cls._hear)
            cls._hooked = True
        watch = cls._active = cls(folder, outside)
        try:
            yield watch
        finally:
            cls._active = None

    @classmethod
    def _hear(cls, event: str, arguments: tuple) -> None:
        watch = cls._active
        if watch is None:
            return
        if event in _FORBIDDEN:
            watch.seen.append(f'{event} {arguments!r}'[:200])
        elif event == 'open' and isinstance(arguments[0], (str, bytes)):
            watch._hear_open(os.fsdecode(arguments[0]))
        elif event == 'exec':
            place = getattr(arguments[0], 'co_filename', '')
            if place.startswith(watch._folder):
                watch.seen.append(f'code of {place}')

    def _hear_open(self, name: str) -> None:
        if name.startswith('/') and not name.startswith(('/proc', '/sys', '/dev')) \
                and os.path.realpath(name).startswith(self._outside):
            self.seen.append(f'opened {name}')
