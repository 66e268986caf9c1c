"""
What would a checkpoint have done on what a robot recorded, and how far is that from what was done?

    replay out/demo/episode_bag --checkpoint models/tabletop --config config/replay/demo.yaml \
        --out out/replay
"""

from collections.abc import Mapping
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
import signal
import sys
from typing import Annotated

from rich.console import Console
import typer

from vla_policy_node.evaluation.replay.config import load_config
from vla_policy_node.evaluation.replay.config import ReplayConfig
from vla_policy_node.evaluation.replay.job import Contender
from vla_policy_node.evaluation.replay.job import Job
from vla_policy_node.evaluation.replay.job import ReplayError
from vla_policy_node.evaluation.replay.job import ReplayJob
from vla_policy_node.evaluation.replay.outputs import OutputError
from vla_policy_node.evaluation.replay.report_live import live_lines
from vla_policy_node.evaluation.replay.terminal import facts
from vla_policy_node.evaluation.replay.terminal import rivals


class Mode(str, Enum):
    """How frames come to the policy."""

    OFFLINE = 'offline'
    LIVE = 'live'


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
    mode: Annotated[Mode, typer.Option(
        help='live: played in real time to the policy node')] = Mode.OFFLINE,
    rate: Annotated[float | None, typer.Option(
        help='live: seconds of the recording per second (1.0)')] = None,
    use_sim_time: Annotated[bool, typer.Option(
        '--use-sim-time', help="live: keep the recording's stamps, publish /clock")] = False,
    external_player: Annotated[bool, typer.Option(
        '--external-player', help='live: play nothing, follow ros2 bag play --clock')] = False,
    attach: Annotated[str | None, typer.Option(
        help='live: a policy node that runs, to be used with --external-player')] = None,
    node_parameters: Annotated[Path | None, typer.Option(
        exists=True, help='live: YAML with parameters for the policy node')] = None,
    wait: Annotated[float | None, typer.Option(
        min=1.0, help='live: longest wait for an external player in seconds (60)')] = None,
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
    playback = {
        'rate': rate, 'use_sim_time': use_sim_time or None, 'attach': attach, 'wait_s': wait,
        'external_player': external_player or None, 'node_parameters': node_parameters}
    replayed = _replay_job(job, mode, every, console, {
        name: value for name, value in playback.items() if value is not None})
    try:
        summary = replayed.run()
    except KeyboardInterrupt:
        console.print('replay: interrupted, nothing was written')
        raise typer.Exit(130) from None
    _tell(summary, job, console)
    if summary['live'] and summary['live']['ended_early']:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a fault, 130 interrupted."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name='replay')(replay)
    console = Console(stderr=True, highlight=False)
    # Whoever stops a container or a service sends it; what was evaluated is kept as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(args=None if arguments is None else list(arguments), prog_name='replay',
            standalone_mode=True)
    except SystemExit as stop:
        return int(stop.code or 0)
    except (ValueError, OSError) as error:
        text = error.strerror if isinstance(error, OutputError) else str(error)
        console.print(f'replay: {text}', style='red', markup=False, soft_wrap=True)
        return 1
    return 0


def _replay_job(
    job: Job, mode: Mode, every: int | None, console: Console, playback: Mapping[str, object],
) -> ReplayJob:
    """Return what carries out a job; playback: settings of live mode."""
    if mode is Mode.OFFLINE:
        if playback:
            raise ReplayError(
                f'expected {", ".join(playback)} with --mode live, found it without; add that')
        return ReplayJob(job, console)
    if every is not None:
        raise ReplayError('expected no --every with --mode live, found one; the policy node looks '
                          'at whichever frame is the newest, leave it out')
    try:
        from vla_policy_node.evaluation.replay import live
    except ModuleNotFoundError as error:
        raise ReplayError(f'expected ROS 2 for --mode live, found no {error.name}; source its '
                          'setup file and that of the workspace') from error
    return live.live_job(job, live.LiveSettings(**playback), console)


def _tell(summary: Mapping, job: Job, console: Console) -> None:
    console.print(rivals(summary))
    names = ['report.html', 'summary.json', 'predictions.mcap',
             *(['replay.rrd'] if job.rrd else [])]
    for line in (*live_lines(summary), *facts(summary),
                 '   '.join(f'{job.out}/{name}' for name in names)):
        console.print(line, markup=False, soft_wrap=True)


def _with_every(config: ReplayConfig, every: int | None) -> ReplayConfig:
    if every is None:
        return config
    frames = config.frames.model_copy(update={'every': every})
    return config.model_copy(update={'frames': frames})


if __name__ == '__main__':
    sys.exit(main())
