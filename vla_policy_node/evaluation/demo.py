"""
The demo: starts the nodes, runs closed-loop episodes, and reports what was measured.

Example: python -m vla_policy_node.evaluation.demo --episodes 4 --task 'pick red'
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import signal
import sys
import time

import psutil

# First of all: the ROS wheels start the interpreter anew when rclpy is imported.
import rclpy  # noqa: F401
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

from vla_policy_node import bringup
from vla_policy_node.evaluation import floors
from vla_policy_node.evaluation import live
from vla_policy_node.evaluation import recording
from vla_policy_node.evaluation import report
from vla_policy_node.evaluation import summary as summaries
from vla_policy_node.evaluation.client import DemoClient
from vla_policy_node.evaluation.client import DemoError
from vla_policy_node.evaluation.client import message_type_name
from vla_policy_node.evaluation.client import TOPICS
from vla_policy_node.evaluation.episodes import EpisodePlan
from vla_policy_node.evaluation.episodes import EpisodeResult
from vla_policy_node.evaluation.episodes import plan_episodes
from vla_policy_node.evaluation.supervisor import free_domain_id
from vla_policy_node.evaluation.supervisor import ProcessDiedError
from vla_policy_node.evaluation.supervisor import Supervisor
from vla_policy_node.evaluation.table import terminal_summary
from vla_policy_node.nodes.spinning import spinning_node

DEFAULT_EPISODES = 12
DEFAULT_DURATION_S = 15.0

# Loading and warming up a model of billions of weights takes minutes.
_CONFIGURE_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked for on the command line; started_s is seconds since the epoch."""

    plans: tuple[EpisodePlan, ...]
    floor_plans: tuple[EpisodePlan, ...]
    seed: int
    task: str
    checkpoint: Path
    out: Path
    max_duration_s: float
    started_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """What the live part of a demo left behind."""

    results: tuple[EpisodeResult, ...]
    recording: tuple[recording.Recorded, ...]
    listener: live.Listener
    first_episode_after_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    console = Console(highlight=False)
    # Of this process, so that the imports above count.
    started_s = psutil.Process().create_time()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(_settings(arguments, started_s), console)
    except (DemoError, ProcessDiedError, floors.FloorError, ValueError, OSError) as error:
        console.print(f'demo: {error}', style='red', markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print('demo: interrupted, every process was stopped')
        return 130
    return 0


def run(settings: Settings, console: Console) -> dict[str, object]:
    """Run everything and write summary.json, report.html and the bag; returns the summary."""
    settings.out.mkdir(parents=True, exist_ok=True)
    # Nothing of an earlier run may pass for a result of this one.
    for name in ('summary.json', 'report.html'):
        (settings.out / name).unlink(missing_ok=True)
    bag = settings.out / 'episode_bag'
    shutil.rmtree(bag, ignore_errors=True)
    outcome = _run_live(settings, console)
    measured = outcome.listener.telemetry
    with console.status('writing the bag of one episode'):
        topics = {topic: message_type_name(kind) for topic, kind in TOPICS.items()}
        recording.write_bag(bag, topics, outcome.recording)
    summary = _summary(settings, outcome, _run_floors(settings, outcome, console))
    summaries.write_json(settings.out / 'summary.json', summary)
    page = report.render(summary, outcome.results, list(measured.latencies_ms.values()))
    summaries.write_text(settings.out / 'report.html', page)
    console.print()
    console.print(terminal_summary(summary))
    console.print(f'\n{settings.out}/report.html   {settings.out}/summary.json   {bag}/')
    return summary


def _settings(arguments: Sequence[str] | None, started_s: float) -> Settings:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.split('\n')[1])
    parser.add_argument('--episodes', type=int, default=DEFAULT_EPISODES)
    parser.add_argument('--seed', type=int, default=0, help='decides scenes and colours')
    parser.add_argument('--floor-episodes', type=int,
                        help='the floors play only the first scenes (default: all)')
    parser.add_argument('--task', default='', help="'pick red', a verb, or '' for all in turn")
    parser.add_argument('--checkpoint', type=Path, help='default: the shipped one')
    parser.add_argument('--out', type=Path, default=Path('out/demo'))
    parser.add_argument('--max-duration', type=float, default=DEFAULT_DURATION_S,
                        help='longest time of an episode [s]')
    given = parser.parse_args(arguments)
    checkpoint = given.checkpoint or bringup.share_directory() / 'models' / 'tabletop'
    if not checkpoint.is_dir():
        raise ValueError(f'expected a checkpoint folder at {checkpoint}, found none;'
                         ' give another with --checkpoint')
    if not 1.0 <= given.max_duration <= 600.0:
        raise ValueError(f'expected --max-duration of 1 to 600 s, found {given.max_duration:g}')
    if given.floor_episodes is not None and given.floor_episodes < 1:
        raise ValueError(f'expected --floor-episodes of at least 1, found {given.floor_episodes}')
    plans = tuple(plan_episodes(given.episodes, given.seed, given.task))
    return Settings(
        plans=plans, floor_plans=plans[:given.floor_episodes], seed=given.seed,
        task=given.task, checkpoint=checkpoint.resolve(), out=given.out,
        max_duration_s=given.max_duration, started_s=started_s)


def _run_live(settings: Settings, console: Console) -> LiveRun:
    # A domain of its own keeps the demo apart from robots and other demos on the network.
    os.environ.setdefault('ROS_DOMAIN_ID', str(free_domain_id()))
    os.environ.update(bringup.dds_environment())
    os.environ.setdefault('OMP_NUM_THREADS', str(bringup.inference_threads()))
    listener = live.Listener()
    with Supervisor(settings.out / 'logs', os.environ) as supervisor:
        for process in bringup.demo_processes(settings.checkpoint):
            supervisor.start(process.name, process.command())
        with spinning_node(
                lambda: DemoClient(listener.on_message, supervisor.check)) as client:
            with console.status('loading the policy and starting the simulated robot'):
                _bring_up(client, supervisor)
            after_s = time.time() - settings.started_s
            console.print(f'first episode {after_s:.1f} s after the command')
            results, messages = _episodes(settings, client, listener, console)
    return LiveRun(results=results, recording=messages, listener=listener,
                   first_episode_after_s=after_s)


def _bring_up(client: DemoClient, supervisor: Supervisor) -> None:
    try:
        client.configure(_CONFIGURE_TIMEOUT_S)
        client.activate(_START_TIMEOUT_S)
    except DemoError as error:
        # rclpy's transitions have no text; the node logs why.
        reason = supervisor.printed_after('policy_node', ' refused: ')
        raise DemoError(f'the policy node refused: {reason}' if reason else str(error)) from error
    client.enable(_START_TIMEOUT_S)


def _episodes(
    settings: Settings, client: DemoClient, listener: live.Listener, console: Console,
) -> tuple[tuple[EpisodeResult, ...], tuple[recording.Recorded, ...]]:
    """Return the results, and the messages of the first success or else the last episode."""
    results: list[EpisodeResult] = []
    kept: list[recording.Recorded] = []
    with _progress(console) as progress:
        bar = progress.add_task('episodes', total=len(settings.plans), note='')
        for plan in settings.plans:
            wanted = not any(result.succeeded for result in results)
            result, messages = live.run_episode(
                client, listener, plan, settings.max_duration_s, record=wanted)
            kept = messages if wanted else kept
            results.append(result)
            progress.console.print(_episode_line(result))
            done = sum(item.succeeded for item in results)
            progress.update(bar, advance=1, note=f'{done} of {len(results)} succeeded')
    return tuple(results), tuple(kept)


def _run_floors(
    settings: Settings, outcome: LiveRun, console: Console,
) -> dict[str, list[bool]]:
    """Return the outcomes of each floor on the same scenes, from a process of its own."""
    job = floors.Job(
        plans=settings.floor_plans, max_duration_s=settings.max_duration_s,
        checkpoint=settings.checkpoint,
        quantization=outcome.listener.telemetry.value('quantization'))
    names = tuple(summaries.FLOOR_NAMES)
    with _progress(console) as progress:
        bar = progress.add_task('floors', total=len(names) * len(settings.floor_plans), note='')
        return floors.run_in_process(
            job, names, settings.out / 'logs' / 'floors.log',
            lambda name: progress.update(bar, advance=1, note=summaries.FLOOR_NAMES[name]))


def _summary(
    settings: Settings, outcome: LiveRun, floor_outcomes: dict[str, list[bool]],
) -> dict[str, object]:
    telemetry = outcome.listener.telemetry
    layers = telemetry.value('linear4bit_layers')
    return {
        'format_version': summaries.FORMAT_VERSION,
        **summaries.success_summary(outcome.results),
        'floors': {name: summaries.floor_summary(settings.floor_plans, values)
                   for name, values in floor_outcomes.items()},
        'floors_mode': 'lock-step on the same scenes, without ROS',
        **telemetry.summary(),
        'quantization': telemetry.value('quantization'),
        'linear4bit_layers': int(layers) if layers else None,
        'checkpoint': str(settings.checkpoint),
        'checkpoint_name': settings.checkpoint.name,
        'seed': settings.seed,
        'task_selection': settings.task,
        'max_duration_s': settings.max_duration_s,
        'first_episode_after_s': round(outcome.first_episode_after_s, 2),
        'versions': summaries.versions(),
        'machine': summaries.machine(),
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn('{task.description:<9}'), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn('{task.fields[note]}'), console=console)


def _episode_line(result: EpisodeResult) -> str:
    verdict = '[green]success [/]' if result.succeeded else '[red]not done[/]'
    return f'  {verdict}  {result.elapsed_s:5.1f} s  {result.instruction}'


if __name__ == '__main__':
    sys.exit(main())
