"""
What to hold a success rate against: expert, no-op, random, the policy without any latency, and
the policy with the wrong instruction.

Lock-step: the simulation waits for every action, without ROS. Runs in a process of its own, a
job on standard input and one JSON line per episode on standard output, so that neither torch
nor OpenGL enters the process that measures.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import json
from pathlib import Path
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from vla_policy_node.evaluation.episodes import EpisodePlan

if TYPE_CHECKING:
    from vla_policy_node.simulation import TabletopSim
    from vla_policy_node.simulation import Task

# The longest step of the expert, which the random floor draws from as well [m].
_RANDOM_STEP_M = 0.04

# What is to be done with the robot next, and how such a function is made for one episode.
Act = Callable[['TabletopSim'], np.ndarray]
Maker = Callable[['TabletopSim', 'Task', int], Act]


class FloorError(RuntimeError):
    """The process of the floors ended without all results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    The scenes to do, and for how long.

    checkpoint, quantization: of the policy; quantization None stands for load_policy's default.
    """

    plans: tuple[EpisodePlan, ...]
    max_duration_s: float
    checkpoint: Path
    quantization: str | None = None


def run_in_process(
    job: Job, names: Sequence[str], log: Path, on_episode: Callable[[str], None],
) -> dict[str, list[bool]]:
    """
    Run the named floors in another process; calls on_episode(name) after each episode.

    Returns outcomes per floor, in the order of the plans. Raises FloorError with the end of its
    log if the process fails.
    """
    outcomes: dict[str, list[bool]] = {name: [] for name in names}
    request = json.dumps({'names': list(names), **asdict(job), 'checkpoint': str(job.checkpoint)})
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w', encoding='utf-8') as errors, subprocess.Popen(
        [sys.executable, '-m', __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=errors, text=True,
    ) as process:
        process.stdin.write(request)
        process.stdin.close()
        try:
            for line in process.stdout:
                event = json.loads(line)
                outcomes[event['floor']].append(event['succeeded'])
                on_episode(event['floor'])
        except BaseException:
            process.terminate()
            raise
    if process.returncode or any(len(done) != len(job.plans) for done in outcomes.values()):
        end = log.read_text(encoding='utf-8').strip().splitlines()[-1:] or ['no output']
        raise FloorError(f'the floors ended with exit code {process.returncode}: {end[0]}')
    return outcomes


def main() -> int:
    """Do the job on standard input."""
    from vla_policy_node.simulation import ACTION_PERIOD_S
    from vla_policy_node.simulation import parse_task
    from vla_policy_node.simulation import run_episode
    from vla_policy_node.simulation import TabletopSim

    request = json.load(sys.stdin)
    # Libraries that print must not break the line protocol.
    output, sys.stdout = sys.stdout, sys.stderr
    max_steps = round(request['max_duration_s'] / ACTION_PERIOD_S)
    makers = {**_SCRIPTED, **(_policy_makers(request) if _needs_policy(request) else {})}
    sim = TabletopSim(image_size=(480, 640) if _needs_policy(request) else None)
    for name in request['names']:
        for plan in request['plans']:
            task = sim.reset(plan['seed'], parse_task(plan['task']))
            act = makers[name](sim, task, plan['seed'])
            outcome = run_episode(sim, task, act, max_steps=max_steps)
            event = {'floor': name, 'succeeded': bool(outcome.succeeded)}
            print(json.dumps(event), file=output, flush=True)
    return 0


def wrong_colour(task_colour: str, present: Sequence[str], seed: int) -> str:
    """
    Return the colour of another block on the table, the same for a seed.

    Raises ValueError when there is no other block.
    """
    others = sorted(set(present) - {task_colour})
    if not others:
        raise ValueError(f'expected a second block beside the {task_colour} one, found none')
    return others[seed % len(others)]


def _expert(_: 'TabletopSim', task: 'Task', __: int) -> Act:
    from vla_policy_node.simulation import expert_action

    return lambda sim: expert_action(sim.state(), task)


def _no_op(sim: 'TabletopSim', _: 'Task', __: int) -> Act:
    action = np.zeros(7)
    action[6] = sim.gripper_opening()
    return lambda _: action


def _random(_: 'TabletopSim', __: 'Task', seed: int) -> Act:
    rng = np.random.default_rng(seed)

    def act(_: 'TabletopSim') -> np.ndarray:
        step = rng.uniform(-_RANDOM_STEP_M, _RANDOM_STEP_M, 3)
        return np.concatenate([step, np.zeros(3), rng.uniform(0, 1, 1)])
    return act


_SCRIPTED = {'expert': _expert, 'no_op': _no_op, 'random': _random}


def _needs_policy(request: dict) -> bool:
    return not set(request['names']) <= set(_SCRIPTED)


def _policy_makers(request: dict) -> dict[str, Maker]:
    """Return the policy told the task, and told another block; it sees camera frames only."""
    from vla_policy_node.policy import load_policy
    from vla_policy_node.policy import Observation
    from vla_policy_node.simulation import Task
    from vla_policy_node.vla_config import VlaConfig

    camera = VlaConfig.load(request['checkpoint']).cameras[0].name
    options = {'quantization': request['quantization']} if request['quantization'] else {}
    policy = load_policy(request['checkpoint'], **options)

    def told(instruction: str) -> Act:
        def act(sim: 'TabletopSim') -> np.ndarray:
            observation = Observation(images={camera: sim.render()}, instruction=instruction)
            return policy.infer(observation).actions[0]
        return act

    def right(_: 'TabletopSim', task: 'Task', __: int) -> Act:
        return told(task.instruction)

    def wrong(sim: 'TabletopSim', task: 'Task', seed: int) -> Act:
        colour = wrong_colour(task.colour, tuple(sim.state().blocks), seed)
        return told(Task(task.verb, colour).instruction)

    return {'policy_lock_step': right, 'wrong_instruction': wrong}


if __name__ == '__main__':
    sys.exit(main())
