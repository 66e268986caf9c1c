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
    'where', 'gripper', 'where_side', 'present', 'count', 'side', 'nearest', 'open', 'held',
    'colour_at',
)
_KIND_WEIGHTS = np.array([0.36, 0.12, 0.10, 0.06, 0.04, 0.07, 0.06, 0.06, 0.08, 0.05])
POINTING_KINDS = ('where', 'gripper', 'where_side')
_POINTING_WEIGHTS = np.array([0.65, 0.2, 0.15])
SIDES = ('left', 'right')
WORDS = (
    *COLOURS, 'yes', 'no', 'nothing', 'nowhere',
    'where is the block', 'where is the gripper', 'where is the block furthest left right',
    'is there a block', 'how many blocks are there',
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
        kind = POINTING_KINDS[rng.choice(len(POINTING_KINDS), p=_POINTING_WEIGHTS)]
    else:
        kind = KINDS[rng.choice(len(KINDS), p=_KIND_WEIGHTS)]
    return draw_kind(frames, index, rng, kind)


def draw_kind(
    frames: Frames, index: int, rng: np.random.Generator, kind: str
) -> Question:
    """Draw a question of one of KINDS about frame `index`."""
    return _ASK[kind](frames, index, rng)


def ask_where(frames: Frames, index: int, colour: int) -> Question:
    """Return 'where is the <colour> block' for frame `index`."""
    text = f'where is the {COLOURS[colour]} block'
    if not frames.present[index, colour]:
        return Question(kind='where', text=text, words=('nowhere',))
    return Question(kind='where', text=text, point=tuple(frames.block_uv[index, colour]))


def ask_where_side(frames: Frames, index: int, side: str) -> Question:
    """Return 'where is the block furthest <side>' for frame `index`."""
    colour = furthest(frames, index, side)
    return Question(
        kind='where_side', text=f'where is the block furthest {side}',
        point=tuple(frames.block_uv[index, colour]))


def furthest(frames: Frames, index: int, side: str) -> int:
    """Return the colour of the block furthest to the robot's 'left' or 'right'."""
    present = _present(frames, index)
    y = frames.blocks[index, present, 1]
    return int(present[np.argmax(y) if side == 'left' else np.argmin(y)])


def _where_side(frames: Frames, index: int, rng: np.random.Generator) -> Question:
    return ask_where_side(frames, index, SIDES[rng.integers(2)])


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
    side = SIDES[rng.integers(2)]
    text = f'which block is furthest {side}'
    return Question(kind='side', text=text, words=(COLOURS[furthest(frames, index, side)],))


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
    'where': _where, 'gripper': _gripper, 'where_side': _where_side, 'present': _is_present,
    'count': _count, 'side': _side, 'nearest': _nearest, 'open': _open, 'held': _held,
    'colour_at': _colour_at,
}
