"""The tasks of the tabletop: a verb and the colour of the block it is about."""

from dataclasses import dataclass
import re

from vla_policy_node.simulation.scene import COLOURS

VERBS = ('touch', 'pick', 'push left', 'push right')

# The first phrase of each verb is the instruction, the others are paraphrases.
_PHRASES = {
    'touch': (
        'touch the {colour} block',
        'tap the {colour} block',
        'move to the {colour} block',
        'put the gripper on the {colour} block',
    ),
    'pick': (
        'pick up the {colour} block',
        'lift the {colour} block',
        'grasp the {colour} block',
        'take the {colour} block',
    ),
    'push left': (
        'push the {colour} block left',
        'push the {colour} block to the left',
        'slide the {colour} block left',
        'move the {colour} block to the left',
    ),
    'push right': (
        'push the {colour} block right',
        'push the {colour} block to the right',
        'slide the {colour} block right',
        'move the {colour} block to the right',
    ),
}


@dataclass(frozen=True, slots=True)
class Task:
    """
    One thing to do, e.g. `Task('pick', 'red')`; left and right are the robot's own.

    :param verb: one of VERBS.
    :param colour: one of COLOURS.
    :raises ValueError: if either is unknown.
    """

    verb: str
    colour: str

    def __post_init__(self) -> None:
        """Refuse unknown verbs and colours."""
        if self.verb not in VERBS:
            raise ValueError(f'verb must be one of {", ".join(VERBS)}, found {self.verb!r}')
        if self.colour not in COLOURS:
            raise ValueError(f'colour must be one of {", ".join(COLOURS)}, found {self.colour!r}')

    @property
    def name(self) -> str:
        """Return the short name, e.g. 'pick red'."""
        return f'{self.verb} {self.colour}'

    @property
    def instruction(self) -> str:
        """Return the sentence a user would say, e.g. 'pick up the red block'."""
        return self.instructions[0]

    @property
    def instructions(self) -> tuple[str, ...]:
        """Return the instruction and its paraphrases."""
        return tuple(phrase.format(colour=self.colour) for phrase in _PHRASES[self.verb])


TASKS = tuple(Task(verb, colour) for verb in VERBS for colour in COLOURS)

_BY_TEXT = {text: task for task in TASKS for text in (task.name, *task.instructions)}


def parse_task(text: str) -> Task:
    """
    Return the task named by `text`: a task's name, its instruction or a paraphrase.

    Case, surplus spaces and a final full stop do not matter.

    :raises ValueError: if no task is known by that text; the message lists the names.
    """
    task = _BY_TEXT.get(' '.join(re.findall(r'[^\s.]+', text.lower())))
    if task is None:
        known = ', '.join(known.name for known in TASKS)
        raise ValueError(f'task {text[:80]!r} is unknown; expected one of: {known}')
    return task
