"""What processes use: memory, processor time, and how long the kernel kept them waiting for it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    Of one process, all threads together, since it started.

    :param rss_bytes: resident memory now without shared memory: the segments of DDS have a fixed
        size, and count the more of it has been touched. cpu_s: time on a processor [s].
    :param waited_s: time ready to run but without a processor [s].
    """

    rss_bytes: int
    cpu_s: float
    waited_s: float


def usage(pid: int) -> Usage:
    """Return what a process uses; psutil.NoSuchProcess if it has ended."""
    times = psutil.Process(pid).cpu_times()
    return Usage(
        rss_bytes=_rss_bytes(pid), cpu_s=times.user + times.system, waited_s=waited_s(pid))


def _rss_bytes(pid: int) -> int:
    lines = Path(f'/proc/{pid}/status').read_text(encoding='ascii').splitlines()
    fields = dict(line.split(':', 1) for line in lines)
    return sum(1024 * int(fields[name].split()[0]) for name in ('RssAnon', 'RssFile'))


def waited_s(pid: int) -> float:
    """Return how long the threads of a process were ready to run without a processor [s]."""
    return sum(_waits_s(pid).values())


class Waits:
    """What the kernel let processes wait for a processor since this was made."""

    def __init__(self, *pids: int) -> None:
        """Take the processes."""
        self._since = {pid: _waits_s(pid) for pid in pids}

    def longest_s(self) -> float:
        """Return the wait of the thread of each process that waited most, added up [s]."""
        return sum(
            max((now_s - since.get(thread, 0.0) for thread, now_s in _waits_s(pid).items()),
                default=0.0)
            for pid, since in self._since.items())


def _waits_s(pid: int) -> dict[str, float]:
    """Return what every thread waited, by its id; none where the kernel does not count it."""
    waits = {}
    for thread in Path(f'/proc/{pid}/task').iterdir():
        # One that ended since it was listed waits no longer.
        with suppress(FileNotFoundError, ProcessLookupError):
            waits[thread.name] = int((thread / 'schedstat').read_text().split()[1]) * 1e-9
    return waits
