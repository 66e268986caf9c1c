"""
Recorded bags to LeRobot data sets and back.

    convert to-lerobot bags/monday_* --config config/replay/real_robot.yaml --fps 5 --out data/own
    convert to-bag data/drawer --config drawer.yaml --out drawer.mcap
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
import sys
from typing import Annotated

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import ProgressColumn
from rich.progress import Task
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.text import Text
import typer

from vla_policy_node.recorded import read_bags
from vla_policy_node.training.convert.from_bags import load_config
from vla_policy_node.training.convert.from_bags import period_of_chunks
from vla_policy_node.training.convert.to_bag import read_section
from vla_policy_node.training.convert.to_bag import write_bag
from vla_policy_node.training.convert.to_lerobot import whole_fps
from vla_policy_node.training.convert.to_lerobot import write_lerobot
from vla_policy_node.vla_config import VlaConfig

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True,
                  help='Recorded bags to LeRobot data sets and back.')


@app.command()
def to_lerobot(
    bags: Annotated[list[Path], typer.Argument(help='folders, .mcap or .db3 files')],
    config: Annotated[Path, typer.Option(help='what the topics mean; see config/replay')],
    out: Annotated[Path, typer.Option(help='folder of the data set, not there yet')],
    fps: Annotated[int | None, typer.Option(
        min=1, help='steps a second (default: what the checkpoint or the chunks say)')] = None,
    checkpoint: Annotated[Path | None, typer.Option(
        help='policy whose control period the steps get')] = None,
    instruction: Annotated[str | None, typer.Option(
        help='said all the time, instead of what was recorded')] = None,
) -> None:
    """Write episodes of bags as a LeRobot v3.0 data set."""
    console = _console()
    recorded_config = load_config(config)
    if fps is None:
        fps = whole_fps(VlaConfig.load(checkpoint).action_space.period_s if checkpoint
                        else period_of_chunks(bags, recorded_config))
    with console.status('looking through the bags'):
        recorded = read_bags(bags, recorded_config, period_s=1.0 / fps, instruction=instruction)
    with _progress(console) as show:
        written = write_lerobot(out, recorded, fps=fps, show=show)
    for warning in recorded.warnings:
        _print(console, f'warning: {warning}')
    _print_left_out(console, written.left_out)
    cameras = ', '.join(f'{name} {height}x{width}' for name, (height, width) in
                        written.cameras.items())
    _print(console, f'{out}: {written.episodes} episodes, {written.frames} steps at {fps} a '
                    f'second, cameras {cameras}')


@app.command()
def to_bag(
    dataset: Annotated[Path, typer.Argument(help='folder of a data set, version 2.0 to 3.0')],
    out: Annotated[Path, typer.Option(help='bag that is not there yet: a folder, or a .mcap')],
    config: Annotated[Path | None, typer.Option(
        help='cameras, actions and instruction as in a `kind: lerobot` source; '
        'not needed for data sets that to-lerobot wrote')] = None,
    raw: Annotated[bool, typer.Option('--raw', help='pixels instead of JPEG data')] = False,
) -> None:
    """Write a LeRobot data set as a bag that can be replayed and viewed."""
    console = _console()
    section = read_section(dataset, config)
    with _progress(console) as show:
        written = write_bag(out, section, raw=raw, show=show)
    if written.unusable:
        _print_left_out(console, {'step that cannot be used': written.unusable})
        _print(console, f'the first: {written.first_fault}')
    _print(console, f'{out}: {written.episodes} episodes, {written.steps} steps')
    for topic, kind in written.topics.items():
        _print(console, f'  {topic}  {kind}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a fault, 2 for wrong usage."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name='convert')
    except SystemExit as stop:
        return int(stop.code or 0)
    except (ValueError, OSError) as error:
        _console().print(f'convert: {error}', style='red', markup=False, soft_wrap=True)
        return 1
    return 0


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Return '12.3 steps/s', a dash before it is known."""
        speed = task.finished_speed or task.speed
        return Text('-' if speed is None else f'{speed:.1f} steps/s')


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows the steps done, of all of them."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), RateColumn(),
               TimeRemainingColumn(), TextColumn('left'))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task('writing', total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _console() -> Console:
    return Console(stderr=True, highlight=False)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _print_left_out(console: Console, left_out: Mapping[str, int]) -> None:
    for reason, count in sorted(left_out.items(), key=lambda item: -item[1]):
        _print(console, f'left out: {count} x {reason}')


if __name__ == '__main__':
    sys.exit(main())
