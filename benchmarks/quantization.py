"""
Compare quantisations of a checkpoint on the same simulated scenes, in lock-step.

    python benchmarks/quantization.py                          # the shipped checkpoint, nf4 / none
    python benchmarks/quantization.py --checkpoint DIR --episodes 400 --quantizations nf4,int8

Every scene is played with each quantisation in turn, so the difference is over pairs. No scene
seed is one of training's. Writes JSON and prints a table.
"""

from collections.abc import Sequence
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch
import typer

from vla_policy_node.evaluation.statistics import success_entry
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.simulation import run_episode
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TASKS
from vla_policy_node.simulation import VERBS

SHIPPED = Path(__file__).resolve().parents[1] / 'models' / 'tabletop'
_Z_95 = 1.959963984540054


def main(
    checkpoint: str = typer.Option(str(SHIPPED), help='A checkpoint directory.'),
    quantizations: str = typer.Option('nf4,none', help='Two or more of none, nf4, int8.'),
    episodes: int = typer.Option(96, min=1, help='Scenes; tasks take turns.'),
    seed: int = typer.Option(3_200_000_000, min=0, help='Of the first scene.'),
    max_steps: int = typer.Option(60, min=1, help='Actions per episode, 0.2 s each.'),
    threads: int = typer.Option(1, min=1, help='CPU threads.'),
    output: str = typer.Option('out/quantization.json', help='Where to write the JSON.'),
) -> None:
    """Play the scenes and print successes and paired differences."""
    torch.set_num_threads(threads)
    names = quantizations.split(',')
    policies = {name: load_policy(checkpoint, quantization=name) for name in names}
    sim = TabletopSim()
    outcomes: dict[str, list[bool]] = {name: [] for name in names}
    tasks = [TASKS[place % len(TASKS)] for place in range(episodes)]
    for place, task in enumerate(track(tasks, 'scenes', console=Console(stderr=True))):
        for name, policy in policies.items():
            outcomes[name].append(_play(sim, policy, task, seed + place, max_steps))
    result = _summary(tasks, outcomes)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    _show(result, Console())


def _play(sim: TabletopSim, policy: Any, task: Task, seed: int, max_steps: int) -> bool:
    camera = policy.camera_names[0]
    sim.reset(seed, task)

    def act(sim: TabletopSim) -> Any:
        return policy.infer(Observation(
            images={camera: sim.render()}, instruction=task.instruction)).actions[0]

    return bool(run_episode(sim, task, act, max_steps=max_steps).succeeded)


def _summary(tasks: Sequence[Task], outcomes: dict[str, list[bool]]) -> dict[str, Any]:
    result: dict[str, Any] = {'episodes': len(tasks), 'success': {}, 'difference': {}}
    for name, done in outcomes.items():
        result['success'][name] = {
            'all': success_entry(done),
            **{verb: success_entry([d for d, task in zip(done, tasks, strict=True)
                                    if task.verb == verb]) for verb in VERBS}}
    first, *others = outcomes
    for other in others:
        result['difference'][f'{first} - {other}'] = paired_difference(
            outcomes[first], outcomes[other])
    return result


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """Return the mean difference of paired outcomes, in points, with its 95 % interval."""
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / max(1, count - 1)
    margin = _Z_95 * math.sqrt(variance / count)
    return {
        'points': 100 * mean, 'interval_95': [100 * (mean - margin), 100 * (mean + margin)],
        'only_first': differences.count(1.0), 'only_second': differences.count(-1.0)}


def _show(result: dict[str, Any], console: Console) -> None:
    names = list(result['success'])
    table = Table('task', *names, title=f'{result["episodes"]} scenes, lock-step')
    for verb in (*VERBS, 'all'):
        table.add_row(verb, *(_cell(result['success'][name][verb]) for name in names))
    console.print(table)
    for pair, difference in result['difference'].items():
        low, high = difference['interval_95']
        console.print(
            f'{pair}: {difference["points"]:+.1f} points [{low:+.1f}, {high:+.1f}],'
            f' only the first {difference["only_first"]},'
            f' only the second {difference["only_second"]}')


def _cell(entry: dict[str, Any]) -> str:
    if not entry['episodes']:
        return '-'
    low, high = entry['interval_95']
    return (f'{entry["success"]}/{entry["episodes"]} {entry["rate"]:.0%}'
            f' [{low:.0%}, {high:.0%}]')


if __name__ == '__main__':
    typer.run(main)
