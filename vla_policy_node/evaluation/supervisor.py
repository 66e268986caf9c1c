"""
Starts the processes of a demo, watches them, and stops every one of them.

Knows nothing of ROS: a process is a name, a command line and an environment.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
import ctypes
from dataclasses import dataclass
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import time

# How long a process may take to end by itself after SIGINT.
STOP_TIMEOUT_S = 5.0

_SHOWN_LOG_LINES = 12
# Domains above 101 collide with the ephemeral ports of Linux.
_DOMAINS = range(1, 102)


class ProcessDiedError(RuntimeError):
    """A watched process ended by itself; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One running process and the file with its output."""

    name: str
    process: subprocess.Popen
    log: Path


class Supervisor:
    """Owner of child processes; as a context manager it leaves none behind."""

    def __init__(self, log_directory: Path, environment: Mapping[str, str]) -> None:
        """Take the folder for `<name>.log` files and the whole environment of the children."""
        self._log_directory = log_directory
        self._environment = dict(environment)
        self._children: list[Child] = []

    def __enter__(self) -> 'Supervisor':
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every process."""
        self.stop()

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a process in a process group of its own, its output going to `<name>.log`."""
        self._log_directory.mkdir(parents=True, exist_ok=True)
        log = self._log_directory / f'{name}.log'
        with log.open('wb') as output:
            process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=_end_with_parent)
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise ProcessDiedError if a process has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise ProcessDiedError(_death_message(child, code))

    def printed_after(self, name: str, phrase: str) -> str:
        """Return the rest of the last line that a process printed `phrase` in, or ''."""
        child = next(child for child in self._children if child.name == name)
        _, found, rest = child.log.read_text(errors='replace').rpartition(phrase)
        return rest.splitlines()[0].strip() if found and rest.strip() else ''

    def stop(self) -> None:
        """Interrupt every process group in reverse order; kill what is left after a while."""
        for child in reversed(self._children):
            _signal_group(child, signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in reversed(self._children):
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            # The group may outlive its leader, so it is killed in any case.
            _signal_group(child, signal.SIGKILL)
            child.process.wait()
        self._children.clear()


def _end_with_parent() -> None:
    # A demo that is killed outright must not leave a controller running.
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT)


def _signal_group(child: Child, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _death_message(child: Child, code: int) -> str:
    ending = f'was ended by signal {-code}' if code < 0 else f'ended with exit code {code}'
    lines = child.log.read_text(errors='replace').splitlines()[-_SHOWN_LOG_LINES:]
    shown = '\n'.join(f'  | {line}' for line in lines) or '  | (no output)'
    return f'{child.name} {ending}; the end of {child.log}:\n{shown}'


def free_domain_id() -> int:
    """
    Return a DDS domain id whose first discovery port nobody on this machine has bound.

    Raises RuntimeError if there is none.
    """
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # RTPS 9.6.1.1: port base 7400, 250 per domain, 10 = unicast discovery.
                probe.bind(('', 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise RuntimeError('expected a free DDS domain in 1..101, found all in use; set ROS_DOMAIN_ID')


def reserve_domain_id() -> tuple[int, socket.socket]:
    """Return a free DDS domain id that no other caller on this machine gets until it is closed."""
    while True:
        domain, reservation = free_domain_id(), socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: like the ports of DDS it belongs to the network namespace, and
            # the kernel frees it with the process.
            reservation.bind(f'\0vla_policy_node_domain_{domain}')
        except OSError:
            reservation.close()
        else:
            return domain, reservation
