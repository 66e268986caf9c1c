"""
Puts a process before those that can wait.

A policy keeps every core busy for as long as it thinks. Without a priority of its own the
controller waits for the scheduler's turn at each of its ticks.
"""

from contextlib import suppress
import os
from pathlib import Path
import resource

_THREADS = Path('/proc/self/task')


def become_realtime(priority: int) -> str:
    """
    Give every thread of this process, and those they start, a real-time priority.

    :param priority: of SCHED_FIFO, 1 to 99; any of them comes before everything without one.
    :return: '' or one line that says why it is not so.
    """
    try:
        for thread in _THREADS.iterdir():
            # One that ended since it was listed needs nothing.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        allowed, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
        return (f'expected the right to real-time priority {priority}, found {allowed}: commands'
                ' may be late while the machine is busy; allow it in /etc/security/limits.d'
                ' (<user> - rtprio 99), or set realtime_priority to 0')
    return ''
