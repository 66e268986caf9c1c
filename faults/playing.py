"""Plays the cases of one part in this process; an exception is a miss, never the end."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
import time
import traceback
from typing import Any
from typing import Protocol

from faults.parts import PARTS
from faults.tally import Case
from faults.tally import generator
from faults.tally import Tally

# A case in which so many episodes crashed is given up: the rest would say nothing new.
MOST_CRASHES = 100

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What is played.

    :param only: names of parts or 'part/case'; empty for all.
    :param episode: of the one case in `only`, just this episode; None for all.
    """

    short: bool
    seed: int
    only: tuple[str, ...] = ()
    episode: int | None = None


class Listener(Protocol):
    """What a part tells while it is played."""

    def begins(self, name: str, injections: int) -> None:
        """Note that a case begins."""

    def counted(self, name: str, injected: int, missed: int) -> None:
        """Note how far it is."""

    def ended(self, name: str, result: Result) -> None:
        """Note its result."""


def play_part(
    part: str, settings: Settings, listener: Listener, scratch: Path,
    open_cases: Callable[..., AbstractContextManager] | None = None,
) -> None:
    """
    Play the wanted cases of a part.

    :param scratch: an empty folder; what is left in it is for the caller to remove.
    :param open_cases: in place of the `cases` of the part's module.
    :raises LookupError: the part has no case of the wanted name.
    """
    open_cases = open_cases or import_module(PARTS[part]).cases
    with open_cases(short=settings.short, scratch=scratch) as cases:
        wanted = [case for case in cases if is_wanted(settings.only, part, case.name)]
        if not wanted:
            raise LookupError(f'expected a case of {", ".join(case.name for case in cases)}, '
                              f'found {", ".join(settings.only)}')
        for case in wanted:
            name = f'{part}/{case.name}'
            listener.begins(name, case.injections)
            listener.ended(name, play_case(name, case, settings, listener))


def is_wanted(only: tuple[str, ...], part: str, case: str) -> bool:
    """Tell whether a case was asked for."""
    return not only or part in only or f'{part}/{case}' in only


def play_case(name: str, case: Case, settings: Settings, listener: Listener) -> Result:
    """Play one case to its end and return its counts."""
    tally = Tally(name, settings.seed,
                  lambda tally: listener.counted(name, tally.injected, tally.missed))
    start_s = time.monotonic()
    if settings.episode is not None:
        _play_episode(case, settings.episode, tally)
    else:
        crashes = number = 0
        while tally.injected < case.injections and crashes < MOST_CRASHES:
            crashes += not _play_episode(case, number, tally)
            number += 1
    return {**tally.result(), 'duration_s': round(time.monotonic() - start_s, 3)}


def _play_episode(case: Case, number: int, tally: Tally) -> bool:
    """Play an episode; return whether it went through and injected anything."""
    tally.episode, before = number, tally.injected
    try:
        case.play(number, generator(tally.seed, tally.name, number), tally)
    except Exception as error:
        tally.miss(f'crash: {crash_text(error)}')
        return False
    if tally.injected == before:
        tally.miss('the episode injected nothing')
        return False
    return True


def crash_text(error: BaseException) -> str:
    """Return an error's class, text and place on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f' in {Path(frames[-1].filename).name}:{frames[-1].lineno}' if frames else ''
    return f'{type(error).__name__}: {" ".join(str(error).split())}{where}'
