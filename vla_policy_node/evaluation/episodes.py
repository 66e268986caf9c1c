"""What a closed-loop episode is and what came out of it; no ROS, no simulator."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import random

VERBS = ('touch', 'pick', 'push left', 'push right')
COLOURS = ('red', 'green', 'blue', 'yellow')

# Training draws its scenes from seeds below 2**31, so these are scenes it never saw.
_FIRST_SEED = 2 ** 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """The start of one episode: seed of the scene and the task '<verb> <colour>'."""

    seed: int
    task: str

    @property
    def verb(self) -> str:
        """The task without its colour."""
        return self.task.rsplit(' ', 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """One picture of the film strip: JPEG bytes, time [s], the policy's plan or ''."""

    time_s: float
    jpeg: bytes
    plan: str = ''


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """
    The outcome of one live episode.

    elapsed_s: wall time from goal to end. chunks: published for the instruction.
    tool_path: (t [s], x, y, z [m] in the base frame) samples. ending: what ended it.
    """

    plan: EpisodePlan
    instruction: str
    succeeded: bool
    reason: str
    nearest_block: str
    elapsed_s: float
    chunks: int
    ending: str
    tool_path: tuple[tuple[float, float, float, float], ...] = ()
    stills: tuple[Still, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, without pictures and path."""
        return {
            'seed': self.plan.seed,
            'task': self.plan.task,
            'instruction': self.instruction,
            'succeeded': self.succeeded,
            'reason': self.reason,
            'nearest_block': self.nearest_block,
            'elapsed_s': round(self.elapsed_s, 3),
            'chunks': self.chunks,
            'ending': self.ending,
        }


def tasks_of(selection: str) -> list[str]:
    """
    Return the task names that a selection stands for.

    selection: '' for all, a verb, or '<verb> <colour>'. Raises ValueError listing the choices.
    """
    wanted = ' '.join(selection.split())
    names = [f'{verb} {colour}' for verb in VERBS for colour in COLOURS]
    chosen = [name for name in names if wanted in ('', name, name.rsplit(' ', 1)[0])]
    if not chosen:
        raise ValueError(
            f"expected a task such as 'pick red' or a verb of {', '.join(map(repr, VERBS))},"
            f' found {selection!r}')
    return chosen


def plan_episodes(count: int, seed: int, selection: str = '') -> list[EpisodePlan]:
    """
    Return `count` starts, balanced over the verbs of the selection, the same for a seed.

    count: at least 1. Colours are drawn; the scenes are ones that training never draws.
    """
    if count < 1:
        raise ValueError(f'expected at least 1 episode, found {count}')
    if seed < 0:
        raise ValueError(f'expected a seed of at least 0, found {seed}')
    tasks = tasks_of(selection)
    verbs = list(dict.fromkeys(task.rsplit(' ', 1)[0] for task in tasks))
    draw = random.Random(seed)
    plans = []
    for index in range(count):
        verb = verbs[index % len(verbs)]
        task = draw.choice([name for name in tasks if name.rsplit(' ', 1)[0] == verb])
        plans.append(EpisodePlan(seed=_FIRST_SEED + 1000 * seed + index, task=task))
    return plans


def outcomes_by_verb(
    plans: Sequence[EpisodePlan], outcomes: Sequence[bool],
) -> dict[str, list[bool]]:
    """Return the outcomes grouped by the verb of their plan, in the order of VERBS."""
    grouped: dict[str, list[bool]] = {verb: [] for verb in VERBS}
    for plan, outcome in zip(plans, outcomes, strict=True):
        grouped[plan.verb].append(outcome)
    return {verb: values for verb, values in grouped.items() if values}
