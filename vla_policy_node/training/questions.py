"""
Questions about a scene and their answers: the vision-language source of the mixture.

Left means the robot's left (+y), as in the instructions. A pointing answer is an image position
written with the same number tokens as the actions.
"""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.training.frames import COLOURS
from vla_policy_node.training.frames import Frames

KINDS = (
    'where', 'gripper', 'present', 'count', 'side', 'nearest', 'open', 'held', 'colour_at',
)
POINTING_KINDS = ('where', 'gripper')
_KIND_WEIGHTS = np.array([0.45, 0.15, 0.06, 0.04, 0.08, 0.06, 0.04, 0.06, 0.06])
WORDS = (
    *COLOURS, 'yes', 'no', 'nothing', 'nowhere',
    'where is the block', 'where is the gripper', 'is there a block', 'how many blocks are there',
    'which block is furthest left right', 'which block is nearest to the gripper',
    'is the gripper open', 'what does the gripper hold', 'which colour is the block at',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """
    One question with its answer: words, or a position (u right, v down) in [0, 1], or both none.

    kind: one of KINDS.
    """

    kind: str
    text: str
    words: tuple[str, ...] = ()
    point: tuple[float, float] | None = None


def draw_question(
    frames: Frames, index: int, rng: np.random.Generator, *, pointing_only: bool
) -> Question:
    """Draw one question about frame `index`."""
    if pointing_only:
        kind = 'where' if rng.random() < 0.75 else 'gripper'
    else:
        kind = KINDS[rng.choice(len(KINDS), p=_KIND_WEIGHTS)]
    return _ASK[kind](frames, index, rng)


def ask_where(frames: Frames, index: int, colour: int) -> Question:
    """Return 'where is the <colour> block' for frame `index`."""
    text = f'where is the {COLOURS[colour]} block'
    if not frames.present[index, colour]:
        return Question(kind='where', text=text, words=('nowhere',))
    return Question(kind='where', text=text, point=tuple(frames.block_uv[index, colour]))


def _where(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    colours = np.arange(len(COLOURS)) if rng.random() < 0.1 else _present(frames, index)
    return ask_where(frames, index, int(rng.choice(colours)))


def _gripper(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    point = tuple(frames.tool_uv[index])
    return Question(kind='gripper', text='where is the gripper', point=point)


def _is_present(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    colour = int(rng.integers(len(COLOURS)))
    answer = 'yes' if frames.present[index, colour] else 'no'
    return Question(
        kind='present', text=f'is there a {COLOURS[colour]} block', words=(answer,))


def _count(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    count = str(int(frames.present[index].sum()))
    return Question(kind='count', text='how many blocks are there', words=(count,))


def _side(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    side = 'left' if rng.random() < 0.5 else 'right'
    present = _present(frames, index)
    y = frames.blocks[index, present, 1]
    best = present[np.argmax(y) if side == 'left' else np.argmin(y)]
    text = f'which block is furthest {side}'
    return Question(kind='side', text=text, words=(COLOURS[best],))


def _nearest(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    present = _present(frames, index)
    distance = np.linalg.norm(frames.blocks[index, present] - frames.tool[index], axis=-1)
    return Question(
        kind='nearest', text='which block is nearest to the gripper',
        words=(COLOURS[present[np.argmin(distance)]],))


def _open(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    answer = 'yes' if frames.opening[index] > 0.5 else 'no'
    return Question(kind='open', text='is the gripper open', words=(answer,))


def _held(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    held = frames.held[index]
    answer = COLOURS[held] if held >= 0 else 'nothing'
    return Question(kind='held', text='what does the gripper hold', words=(answer,))


def _colour_at(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    colour = int(rng.choice(_present(frames, index)))
    u, v = np.clip(frames.block_uv[index, colour] * 256, 0, 255).astype(int)
    text = f'which colour is the block at {u} {v}'
    return Question(kind='colour_at', text=text, words=(COLOURS[colour],))


def _present(frames: Frames, index: int) -> np.ndarray:
    return np.flatnonzero(frames.present[index])


_ASK = {
    'where': _where, 'gripper': _gripper, 'present': _is_present, 'count': _count,
    'side': _side, 'nearest': _nearest, 'open': _open, 'held': _held, 'colour_at': _colour_at,
}
