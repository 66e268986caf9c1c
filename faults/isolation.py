"""
Plays every part in a process of its own, so that a crash or a hang of one is counted as a miss.

What the process and its children write goes to a log file; the counts come back through a pipe.
"""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
import os
from pathlib import Path
import signal
import tempfile
import time

from faults.parts import PARTS
from faults.playing import crash_text
from faults.playing import Listener
from faults.playing import play_part
from faults.playing import Result
from faults.playing import Settings

# A part that counts nothing for so long hangs.
SILENCE_S = 300.0
_NOTICE_S = 0.2
# For the process to end by itself, after its end and after trouble.
_GRACE_S, _SHORT_GRACE_S = 30.0, 0.5
# For an interrupted part to end what it has started.
_UNWINDING_S = 20.0


def play_apart(
    part: str, settings: Settings, listener: Listener, log: Path, silence_s: float = SILENCE_S,
) -> None:
    """Play a part in a process of its own; one that dies or hangs is a missed case 'crash'."""
    receiver, sender = get_context('spawn').Pipe(duplex=False)
    # Of this process, because one that is killed leaves its folders behind.
    with tempfile.TemporaryDirectory(prefix='faults_', ignore_cleanup_errors=True) as scratch:
        process = get_context('spawn').Process(
            target=_child, args=(part, PARTS[part], settings, sender, log, Path(scratch)))
        process.start()
        sender.close()
        try:
            trouble = _listen(receiver, listener, silence_s)
            process.join(_GRACE_S if trouble is None else _SHORT_GRACE_S)
        finally:
            _end(process)
    if trouble is None and process.exitcode == 0:
        return
    trouble = trouble or 'the process of the part did not end well'
    listener.ended(f'{part}/crash', crash_result(
        settings.seed, f'{trouble}, {_exit_text(process.exitcode)}; see {log}'))


def crash_result(seed: int, found: str) -> Result:
    """Return the counts of a part that did not come to its end."""
    return {'injected': 1, 'held': 0, 'missed': 1, 'rejections': {}, 'duration_s': 0.0,
            'misses': [{'seed': seed, 'episode': None, 'given': '', 'found': found}]}


def _listen(receiver: Connection, listener: Listener, silence_s: float) -> str | None:
    """Pass on what the part tells; return what went wrong, None where it came to its end."""
    last = 'its start'
    while True:
        if not receiver.poll(silence_s):
            return f'nothing was counted for {silence_s:g} s after {last}'
        try:
            kind, *values = receiver.recv()
        except EOFError:
            return f'the process of the part died after {last}'
        if kind == 'finished':
            return None
        if kind == 'crashed':
            return f'crash: {values[0]} after {last}'
        last = f'{kind} {" ".join(str(value) for value in values if not isinstance(value, dict))}'
        getattr(listener, kind)(*values)


def _child(
    part: str, module: str, settings: Settings, sender: Connection, log: Path, scratch: Path,
) -> None:
    os.setsid()  # Its own children are ended with it.
    # A shell's background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    try:
        play_part(part, settings, _Sender(sender), scratch, import_module(module).cases)
    except Exception as error:
        sender.send(('crashed', crash_text(error)))
        raise
    sender.send(('finished',))


class _Sender:
    """A listener at the other end of a pipe."""

    def __init__(self, sender: Connection) -> None:
        self._sender = sender
        self._told_s = 0.0

    def begins(self, name: str, injections: int) -> None:
        self._sender.send(('begins', name, injections))

    def counted(self, name: str, injected: int, missed: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _NOTICE_S:
            self._told_s = now_s
            self._sender.send(('counted', name, injected, missed))

    def ended(self, name: str, result: Result) -> None:
        self._sender.send(('ended', name, result))


def _end(process) -> None:
    """End the process and whatever it has started; it may clean up after itself first."""
    try:
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
            process.join(_UNWINDING_S)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.is_alive():
            process.kill()
        process.join()


def _exit_text(code: int) -> str:
    return f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'


def play_all(
    parts: Sequence[str], settings: Settings, listener: Listener, out: Path,
    silence_s: float = SILENCE_S,
) -> None:
    """Play parts one after the other; their logs go to `out`."""
    for part in parts:
        play_apart(part, settings, listener, out / f'{part}.log', silence_s)
