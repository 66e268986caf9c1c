"""
What would a checkpoint have done on what a robot recorded, and how far is that from what was done?

    replay out/demo/episode_bag --checkpoint models/tabletop --config config/replay/demo.yaml \
        --out out/replay
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
import sys
from typing import Annotated

from rich.console import Console
import typer

from vla_policy_node.evaluation.replay.config import load_config
from vla_policy_node.evaluation.replay.config import ReplayConfig
from vla_policy_node.evaluation.replay.job import Contender
from vla_policy_node.evaluation.replay.job import Job
from vla_policy_node.evaluation.replay.job import ReplayJob
from vla_policy_node.evaluation.replay.terminal import facts
from vla_policy_node.evaluation.replay.terminal import rivals


class Quantization(str, Enum):
    """Of the language model's linear layers."""

    NONE = 'none'
    NF4 = 'nf4'
    INT8 = 'int8'


def replay(
    bags: Annotated[list[Path], typer.Argument(help='folders, .mcap or .db3 files')],
    checkpoint: Annotated[str, typer.Option(help='directory with vla_config.json, or a hub id')],
    config: Annotated[Path, typer.Option(help='what the topics mean; see config/replay')],
    out: Annotated[Path, typer.Option(help='folder for the results')],
    against: Annotated[str | None, typer.Option(help='a second checkpoint')] = None,
    quantization: Annotated[Quantization, typer.Option(help='of the checkpoint')] =
    Quantization.NF4,
    against_quantization: Annotated[Quantization | None, typer.Option(
        help='of the second; alone it compares the checkpoint with itself')] = None,
    unnorm_key: Annotated[str | None, typer.Option(help='whose statistics un-normalise')] = None,
    against_unnorm_key: Annotated[str | None, typer.Option(help='the same of the second')] = None,
    device: Annotated[str, typer.Option(help='cpu, cuda or cuda:<index>')] = 'cpu',
    dtype: Annotated[str, typer.Option(help='of what is not quantised')] = 'bfloat16',
    every: Annotated[int | None, typer.Option(
        min=1, help='every n-th of the frames that the configuration selects')] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help='leave out what follows')] = None,
    instruction: Annotated[str | None, typer.Option(
        help='said all the time, instead of what was recorded')] = None,
    rrd: Annotated[bool, typer.Option('--rrd', help='a file for the Rerun viewer too')] = False,
) -> None:
    """Show recorded frames to a policy and measure how far it is from what was done."""
    first = Contender(checkpoint=checkpoint, quantization=quantization.value,
                      unnorm_key=unnorm_key)
    second = None
    if against is not None or against_quantization is not None:
        second = Contender(
            checkpoint=against or checkpoint,
            quantization=(against_quantization or quantization).value,
            unnorm_key=against_unnorm_key if against else against_unnorm_key or unnorm_key)
    job = Job(
        bags=bags, first=first, against=second, config=_with_every(load_config(config), every),
        out=out, device=device, dtype=dtype, instruction=instruction, max_frames=max_frames,
        rrd=rrd)
    console = Console(highlight=False)
    try:
        summary = ReplayJob(job, console).run()
    except KeyboardInterrupt:
        console.print('replay: interrupted, nothing was written')
        raise typer.Exit(130) from None
    console.print(rivals(summary))
    names = ['report.html', 'summary.json', 'predictions.mcap', *(['replay.rrd'] if rrd else [])]
    for line in (*facts(summary), '   '.join(f'{out}/{name}' for name in names)):
        console.print(line, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a fault, 130 interrupted."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name='replay')(replay)
    console = Console(stderr=True, highlight=False)
    try:
        app(args=None if arguments is None else list(arguments), prog_name='replay',
            standalone_mode=True)
    except SystemExit as stop:
        return int(stop.code or 0)
    except (ValueError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        console.print(f'replay: {text}', style='red', markup=False, soft_wrap=True)
        return 1
    return 0


def _with_every(config: ReplayConfig, every: int | None) -> ReplayConfig:
    if every is None:
        return config
    frames = config.frames.model_copy(update={'every': every})
    return config.model_copy(update={'frames': frames})


if __name__ == '__main__':
    sys.exit(main())
