"""
Inject faults, count which were held, and fail where one was missed.

    python -m faults                                  # the full form, from the source tree
    python -m faults --short --only actions --only images
    python -m faults --only actions/malformed --seed 7 --episode 123   # one of them once more

The last line is `faults: N injected, N held, M missed`; the exit code is 1 where M is not 0.
"""

from pathlib import Path
from typing import Annotated

# Here already: the ROS wheels start the interpreter anew when rclpy is imported, and the process
# of a part would lose what it was told at its start.
import rclpy  # noqa: F401
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
import typer

from faults.isolation import play_all
from faults.parts import PARTS
from faults.playing import Result
from faults.playing import Settings
from faults.summary import last_line
from faults.summary import miss_lines
from faults.summary import summarise
from faults.summary import table
from faults.summary import write_summary


def main(
    short: Annotated[bool, typer.Option('--short', help='the form for tests')] = False,
    only: Annotated[list[str] | None, typer.Option(
        help='part or part/case; may be given several times')] = None,
    out: Annotated[Path, typer.Option(help='folder for summary.json and logs')] = Path(
        'out/faults'),
    seed: Annotated[int, typer.Option(min=0, help='of everything drawn by chance')] = 0,
    episode: Annotated[int | None, typer.Option(
        min=0, help='play this episode alone, of the one case named by --only')] = None,
) -> None:
    """Inject faults and count which were held."""
    settings = Settings(short=short, seed=seed, only=tuple(only or ()), episode=episode)
    parts = wanted_parts(settings)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    results: dict[str, Result] = {}
    with Progress(
            TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=console, transient=True) as progress:
        play_all(parts, settings, _Bars(progress, results), out)
    summary = summarise(results, seed=seed, short=short)
    path = write_summary(summary, out)
    console.print(table(summary))
    for line in miss_lines(summary):
        console.print(line, style='red', markup=False, highlight=False)
    console.print(f'written: {path}', highlight=False)
    print(last_line(summary))
    raise typer.Exit(1 if summary['missed'] else 0)


def wanted_parts(settings: Settings) -> list[str]:
    """Return the parts to play; typer.BadParameter for a name that is none."""
    asked = {name.partition('/')[0] for name in settings.only}
    if unknown := asked - set(PARTS):
        raise typer.BadParameter(
            f'expected parts of {", ".join(PARTS)}, found {", ".join(sorted(unknown))}')
    if settings.episode is not None and not (
            len(settings.only) == 1 and '/' in settings.only[0]):
        raise typer.BadParameter('--episode: expected one case, as in --only part/case')
    return [part for part in PARTS if not asked or part in asked]


class _Bars:
    """Shows how far each case is, and keeps the results."""

    def __init__(self, progress: Progress, results: dict[str, Result]) -> None:
        self._progress = progress
        self._results = results
        self._tasks: dict[str, int] = {}

    def begins(self, name: str, injections: int) -> None:
        self._tasks[name] = self._progress.add_task(name, total=injections)

    def counted(self, name: str, injected: int, missed: int) -> None:
        shown = f'{name}, [red]{missed} missed' if missed else name
        self._progress.update(self._tasks[name], completed=injected, description=shown)

    def ended(self, name: str, result: Result) -> None:
        self._results[name] = result
        if name in self._tasks:
            self._progress.update(self._tasks[name], completed=result['injected'])


if __name__ == '__main__':
    typer.run(main)
