"""
Test RT-2's claims on the tabletop: retention, knowledge transfer, and planning before acting.

    for name in pretrained cofinetuned robot-only no-plan; do
        cofinetune --config config/training/claims/$name.yaml --out out/claims/$name
    done
    python benchmarks/claims.py out/claims

All arms begin with the same pretrained weights. No robot label of theirs is about yellow blocks or
says "furthest left"; questions about both are asked of all but the robot-only arm. Closed loop in
lock-step, unquantised, on scenes that no training saw.
"""

from collections.abc import Sequence
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch
import typer

from vla_policy_node.evaluation.statistics import wilson_interval
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.simulation import Task
from vla_policy_node.simulation.layout import draw_layout
from vla_policy_node.training.closed_loop import balanced_episodes
from vla_policy_node.training.closed_loop import Outcome
from vla_policy_node.training.closed_loop import ParallelEpisodes
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.probe import ask_questions
from vla_policy_node.training.probe import open_checkpoint
from vla_policy_node.training.probe import Reader
from vla_policy_node.training.questions import KINDS as QUESTIONS
from vla_policy_node.vla_config import VlaConfig

ARMS = ('pretrained', 'cofinetuned', 'robot-only', 'no-plan')
HELD_OUT_COLOUR = 'yellow'
PHRASES = {'touch': 'touch the block furthest left', 'pick': 'pick up the block furthest left'}
KINDS_OF_INSTRUCTIONS = (
    'known words', 'held-out colour', 'scenes of the phrase, by colour', 'held-out phrase')
_FIRST_SEED = 95_000_000
_PARALLEL = 12
_MAX_STEPS = 60
_TIMED = 60


def main(
    folder: str = typer.Argument(help='Holds a checkpoint folder per arm.'),
    held_out: str = typer.Option(help='The held-out frames, held-out-*.npz of a run.'),
    episodes: int = typer.Option(96, min=8, help='Per arm and kind of instruction.'),
    questions: int = typer.Option(200, min=1, help='Per arm and kind of question.'),
    arms: str = typer.Option(','.join(ARMS), help='Measure only these; others as in the JSON.'),
    output: str = typer.Option('out/claims.json', help='Where to write the JSON.'),
) -> None:
    """Measure the arms and print the tables."""
    torch.set_num_threads(1)
    frames, result = Frames.load(Path(held_out)), {}
    if Path(output).exists():
        result = json.loads(Path(output).read_text(encoding='utf-8'))
    for arm in track(arms.split(','), 'arms', console=Console(stderr=True)):
        checkpoint = Path(folder) / arm
        reader = open_checkpoint(checkpoint)
        result[arm] = {'questions': _questions(reader, frames, questions)}
        if arm != 'pretrained':
            camera = VlaConfig.load(checkpoint).cameras[0]
            result[arm]['closed_loop'] = _closed_loop(
                reader, ParallelEpisodes(_PARALLEL, camera), episodes)
        _write(result, Path(output))
    if 'no-plan' in arms.split(','):
        result['plan_time_ms'] = _plan_times(Path(folder))
        _write(result, Path(output))
    _show(result, Console())


def _write(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


def _questions(reader: Reader, frames: Frames, count: int) -> dict[str, Any]:
    scores = ask_questions(reader, frames, per_kind=count, seed=17)
    kinds = {
        kind: {'right': score.right, 'asked': score.asked,
               'median_px': float(np.median(score.error_px)) if score.error_px.size else None}
        for kind, score in scores.items()}
    right, asked = (sum(kind[name] for kind in kinds.values()) for name in ('right', 'asked'))
    return {'kinds': kinds, 'right': right, 'asked': asked}


def _closed_loop(
    reader: Reader, simulators: ParallelEpisodes, count: int
) -> dict[str, dict[str, Any]]:
    def act(images: np.ndarray, words: list[str]) -> np.ndarray:
        return reader.policy.act(images, words)[0]

    known = balanced_episodes(count, _FIRST_SEED, excludes=[HELD_OUT_COLOUR])
    every = balanced_episodes(4 * count, _FIRST_SEED + 10_000)
    colour = [(task, seed) for task, seed in every if task.colour == HELD_OUT_COLOUR]
    phrase = phrase_episodes(count, _FIRST_SEED + 20_000)
    options = {'act': act, 'max_steps': _MAX_STEPS}
    outcomes = [
        simulators.run(known, **options), simulators.run(colour, **options),
        simulators.run(phrase, **options),
        simulators.run(phrase, **options, words=lambda task: PHRASES[task.verb])]
    tallies = zip(KINDS_OF_INSTRUCTIONS, map(_tally, outcomes), strict=True)
    return {**dict(tallies), 'nearest by chance': {
        'held-out colour': _chance(colour), 'held-out phrase': _chance(phrase)}}


def phrase_episodes(count: int, first_seed: int) -> list[tuple[Task, int]]:
    """Return episodes whose block is the furthest left and of a colour the robot knows."""
    colours = ('red', 'green', 'blue')
    chosen: list[tuple[Task, int]] = []
    seed = first_seed
    while len(chosen) < count:
        task = Task(tuple(PHRASES)[len(chosen) % 2], colours[len(chosen) % 3])
        blocks = draw_layout(seed, task).blocks
        if max(blocks, key=lambda colour: blocks[colour][1]) == task.colour:
            chosen.append((task, seed))
        seed += 1
    return chosen


def _chance(episodes: Sequence[tuple[Task, int]]) -> float:
    return float(np.mean([1 / len(draw_layout(seed, task).blocks) for task, seed in episodes]))


def _tally(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    verbs = sorted({outcome.task.verb for outcome in outcomes})
    return {
        'successes': sum(outcome.succeeded for outcome in outcomes),
        'nearest_is_target': sum(o.nearest_block == o.task.colour for o in outcomes),
        'episodes': len(outcomes),
        'per_verb': {verb: [sum(o.succeeded for o in outcomes if o.task.verb == verb),
                            sum(o.task.verb == verb for o in outcomes)] for verb in verbs},
    }


def _plan_times(folder: Path) -> dict[str, dict[str, float]]:
    """Time an inference with and without a plan, in turn, on the same pictures."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (_TIMED, 480, 640, 3), np.uint8)
    times: dict[str, dict[str, float]] = {}
    for quantization in ('none', 'nf4'):
        policies = {arm: load_policy(folder / arm, quantization=quantization)
                    for arm in ('cofinetuned', 'no-plan')}
        taken: dict[str, list[float]] = {arm: [] for arm in policies}
        for picture in pictures:
            for arm, policy in policies.items():
                start = perf_counter()
                policy.infer(Observation(
                    images={'primary': picture}, instruction='touch the red block'))
                taken[arm].append(1e3 * (perf_counter() - start))
        times[quantization] = {arm: float(np.median(values)) for arm, values in taken.items()}
    return times


def _show(result: dict[str, Any], console: Console) -> None:
    every = [arm for arm in ARMS if arm in result]
    arms = [arm for arm in every if arm != 'pretrained']
    table = Table('instructions', *arms, title='success [95 % interval]; nearest block is meant')
    for kind in KINDS_OF_INSTRUCTIONS:
        table.add_row(kind, *(_cell(result[arm]['closed_loop'][kind]) for arm in arms))
    console.print(table)
    table = Table('question', *every, title='right answers; median error of places')
    for kind in QUESTIONS:
        table.add_row(kind, *(_answer(result[arm]['questions']['kinds'][kind]) for arm in every))
    table.add_row('all', *(_rate(result[arm]['questions']) for arm in every))
    console.print(table)
    console.print('ms per inference:', result.get('plan_time_ms', 'not measured'))


def _cell(tally: dict[str, Any]) -> str:
    low, high = wilson_interval(tally['successes'], tally['episodes'])
    share = tally['successes'] / tally['episodes']
    return (f"{tally['successes']}/{tally['episodes']} {share:.0%} [{low:.0%}, {high:.0%}];"
            f" {tally['nearest_is_target']}")


def _answer(kind: dict[str, Any]) -> str:
    error = '' if kind['median_px'] is None else f", {kind['median_px']:.1f} px"
    return f"{kind['right']}/{kind['asked']}{error}"


def _rate(scores: dict[str, Any]) -> str:
    return f"{scores['right']}/{scores['asked']} {scores['right'] / scores['asked']:.1%}"


if __name__ == '__main__':
    typer.run(main)
