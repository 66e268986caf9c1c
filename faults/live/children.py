"""The processes of a part: started, stopped, killed, and none left behind."""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
import ctypes
import os
from pathlib import Path
import shutil
import signal
import subprocess
import time

# How long a process may take to end by itself after SIGINT.
_GRACE_S = 10.0
_SHOWN_LOG_LINES = 12
_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec the less is done the better.
_LIBC = ctypes.CDLL(None)


class DiedError(RuntimeError):
    """A process has ended by itself; the message has the end of its log."""


class Children:
    """Processes by name; as a context manager it leaves none behind, stopped ones neither."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Take the folder for `<name>.log` and the whole environment of the processes."""
        self._logs = logs
        self._environment = dict(environment)
        self._running: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> 'Children':
        return self

    def __exit__(self, *_: object) -> None:
        self.end(*self._running)

    def start(
        self, name: str, command: Sequence[str], *, orphan_signal: int = signal.SIGINT,
        prefix: Sequence[str] = (), **environment: str,
    ) -> int:
        """
        Start a process and return its id; its output is added to its log.

        :param orphan_signal: what it gets when this process dies; SIGKILL for one that may be
            stopped then. prefix: of the command, such as a program that limits it.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open('ab') as output:
            process = subprocess.Popen(
                [*prefix, *command], env={**self._environment, **environment},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, orphan_signal))
        self._running[name] = process
        return process.pid

    def log(self, name: str) -> Path:
        """Return the file with what a process has written."""
        return self._logs / f'{name}.log'

    def pid(self, name: str) -> int:
        """Return the id of a process."""
        return self._running[name].pid

    def has_ended(self, name: str) -> bool:
        """Return whether a process is not there any more."""
        return name not in self._running or self._running[name].poll() is not None

    def check(self) -> None:
        """Raise DiedError if a process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DiedError(f'{name} ended with code {process.returncode}: {self.tail(name)}')

    def tail(self, name: str) -> str:
        """Return the end of a log."""
        lines = self.log(name).read_text(errors='replace').splitlines()
        return ' | '.join(lines[-_SHOWN_LOG_LINES:])

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._running[name].pid, number)

    def kill(self, name: str) -> None:
        """Kill a process without a word, and take note of its end."""
        self.signal(name, signal.SIGKILL)
        self._running.pop(name).wait()
        clean_shared_memory()

    def end(self, *names: str) -> dict[str, int]:
        """Interrupt processes, kill what is left after a while; return their exit codes."""
        for name in names:
            self.signal(name, signal.SIGINT)
            self.signal(name, signal.SIGCONT)
        deadline_s, codes = time.monotonic() + _GRACE_S, {}
        for name in names:
            process = self._running[name]
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline_s - time.monotonic()))
            # The group may outlive its leader, so it is killed in any case.
            self.signal(name, signal.SIGKILL)
            codes[name] = process.wait()
            del self._running[name]
        clean_shared_memory()
        return codes


def clean_shared_memory() -> None:
    """Remove the segments of killed processes, 10 MB each; those in use stay."""
    if tool := shutil.which('fastdds'):
        subprocess.run([tool, 'shm', 'clean'], capture_output=True, timeout=30.0)
