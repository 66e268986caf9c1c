"""Plays parts of the fault suite, from the source tree, in the process of the tests."""

from contextlib import contextmanager
from pathlib import Path
import sys
import tempfile

# The suite is not installed, like the benchmarks.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from faults.playing import play_part
from faults.playing import Settings


class Results(dict):
    """Case -> counts, and nothing shown meanwhile."""

    def begins(self, name, injections):
        """Do nothing."""

    def counted(self, name, injected, missed):
        """Do nothing."""

    def ended(self, name, result):
        """Keep a result."""
        self[name] = result

    @property
    def misses(self):
        """What was missed, in words, of all cases."""
        return [f'{name}: {miss}' for name, result in self.items() for miss in result['misses']]


def play(part, *only, open_cases=None, seed=0, episode=None):
    """Play the short form of a part; return the results by case."""
    results = Results()
    settings = Settings(short=True, seed=seed, only=only, episode=episode)
    with tempfile.TemporaryDirectory() as scratch:
        play_part(part, settings, results, Path(scratch), open_cases)
    return results


def of(cases):
    """Return what opens these cases, in place of a part's own."""
    @contextmanager
    def open_cases(*, short, scratch):
        yield cases
    return open_cases
