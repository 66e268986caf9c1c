"""
Hostile checkpoints: refused by name before anything of them is unpickled or imported.

A canary tells whether a payload has run, and Python's audit hooks whether anything was unpickled,
started, connected to, or opened outside of the folder.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
import os
from pathlib import Path
import resource
import shutil

import numpy as np

from faults.canary import Watch
from faults.parts.bad_headers import header_case
from faults.parts.hostile_files import change
from faults.parts.hostile_files import HARMLESS
from faults.parts.hostile_files import HOSTILE
from faults.parts.hostile_files import Hostile
from faults.parts.hostile_files import LOADS
from faults.parts.hostile_files import Place
from faults.parts.hostile_files import REFUSED
from faults.parts.poisoned_weights import SHIPPED
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy import run_self_test
from vla_policy_node.vla_config import VlaConfigError

Load = Callable[[Path], None]

_HEADERS = 20_000
# Above what the process has when a folder is opened: a checkpoint of 8 MB needs far less.
_MEMORY_BYTES = 2 << 30
_LONGEST_MESSAGE = 1500


def load(folder: Path) -> None:
    """Load a policy and let it look at an image, as the policy node does."""
    policy = load_policy(folder, quantization='none', dtype='float32')
    try:
        run_self_test(policy)
    finally:
        policy.close()


@contextmanager
def cases(
    *, short: bool, scratch: Path, load: Load = load, hostile: Sequence[Hostile] = HOSTILE,
) -> Iterator[Sequence[Case]]:
    """Yield the cases; the short form leaves out most of the folders that load in the end."""
    good = scratch / 'good'
    shutil.copytree(SHIPPED, good)
    # Whoever writes hostile weights writes their sha256 as well.
    change(good / 'vla_config.json', weights_sha256=None)
    if short:
        hostile = [each for number, each in enumerate(hostile)
                   if each.outcome != HARMLESS or number % 4 == 0]
    bench = _Bench(good, scratch, load, hostile)
    yield [Case(name='hostile', injections=len(hostile), play=bench.play),
           header_case(scratch, _HEADERS // (40 if short else 1))]


class _Bench:
    def __init__(
        self, good: Path, scratch: Path, load: Load, hostile: Sequence[Hostile],
    ) -> None:
        self._good = good
        self._scratch = scratch
        self._load = load
        self._hostile = hostile

    def play(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Make a hostile folder, open it, and look for traces."""
        hostile = self._hostile[number % len(self._hostile)]
        place = Place(folder=self._scratch / 'case' / 'checkpoint',
                      outside=self._scratch / 'case' / 'outside',
                      trace=self._scratch / 'trace')
        for folder in (place.folder, place.outside):
            shutil.copytree(self._good, folder, copy_function=_copy)
        try:
            hostile.make(place)
            error, trouble = self._open(place, hostile)
        finally:
            shutil.rmtree(self._scratch / 'case')
            if place.trace.exists():
                place.trace.rmdir()
        tally.judge(trouble, hostile.name, type(error).__name__ if error else '')

    def _open(
        self, place: Place, hostile: Hostile,
    ) -> tuple[Exception | None, str | None]:
        """Load the folder; return its error and what is wrong with all that happened."""
        error = None
        outside = place.outside if hostile.outcome != LOADS else self._scratch / 'nothing'
        with Watch.over(place.folder, outside) as watch, _little_memory():
            try:
                self._load(place.folder)
            except Exception as caught:
                error = caught
        if place.trace.exists():
            return error, 'the payload has run'
        if watch.seen:
            return error, f'seen: {"; ".join(watch.seen[:3])}'
        if error is None:
            return None, 'loaded' if hostile.outcome == REFUSED else None
        if hostile.outcome == LOADS:
            return error, f'expected it to load, found {error}'
        return error, _error_fault(error)


def _error_fault(error: Exception) -> str | None:
    """Return what is wrong with a refusal, None where it is one of the project's, on one line."""
    text = str(error)
    if not isinstance(error, (PolicyError, VlaConfigError)):
        return f'expected an error of this project, found {type(error).__name__}: {text}'
    if not text or '\n' in text or len(text) > _LONGEST_MESSAGE:
        return f'expected one line of at most {_LONGEST_MESSAGE} characters, found {text!r}'
    return None


def _copy(source: str, target: str) -> None:
    # What is hostile replaces the weights and never writes into them.
    (os.link if source.endswith('.safetensors') else shutil.copyfile)(source, target)


@contextmanager
def _little_memory() -> Iterator[None]:
    """Let a file that would take all memory fail instead of taking it."""
    with open('/proc/self/statm', encoding='ascii') as stream:
        now = int(stream.read().split()[5]) * os.sysconf('SC_PAGE_SIZE')
    # Of data, not of addresses: weights are mapped, however large.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + _MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


