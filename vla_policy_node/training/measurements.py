"""
What a finished curriculum checkpoint sees, hears and knows, as tables for the report.

Action tokens are decoded freely on held-out frames: with the right picture and words, with
another frame's picture, with the colour word of another block. A policy that lives off the verb
alone would answer all three alike.
"""

from pathlib import Path
from typing import Any

import numpy as np

from vla_policy_node.training.frames import Frames
from vla_policy_node.training.probe import ActionScore
from vla_policy_node.training.probe import ask_questions
from vla_policy_node.training.probe import draw_prompts
from vla_policy_node.training.probe import NEAR_BINS
from vla_policy_node.training.probe import open_checkpoint
from vla_policy_node.training.probe import Reader
from vla_policy_node.training.probe import RIGHT_WITHIN_PX
from vla_policy_node.training.probe import score_actions
from vla_policy_node.training.probe import score_majority

_MOVING = (0, 1, 2, 6)   # the tabletop's robot never turns its gripper
_NAMES = ('x', 'y', 'z', 'gripper')
_SEED = 17


def measure(folder: Path, frames: Frames, *, prompts: int, per_kind: int) -> dict[str, Any]:
    """
    Return {'title', 'tables': [{'title', 'columns', 'rows', 'note'}]} of a checkpoint folder.

    frames: held out. prompts: instructions per condition. per_kind: questions of each kind.
    """
    reader = open_checkpoint(folder)
    return {
        'title': f'{folder.name} on held-out frames',
        'tables': [_actions_table(reader, frames, prompts),
                   _questions_table(reader, frames, per_kind)],
    }


def _actions_table(reader: Reader, frames: Frames, count: int) -> dict[str, Any]:
    right = draw_prompts(frames, count, _SEED, swap=False)
    swapped = draw_prompts(frames, count, _SEED, swap=True)
    scores = {
        'right picture and words': score_actions(reader, frames, right),
        'pictures shuffled': score_actions(reader, frames, right, shuffle=True),
        'colour word swapped': score_actions(reader, frames, swapped),
        'commonest bin (blind)': score_majority(reader, frames, right),
    }
    return {
        'title': f'Action tokens within {NEAR_BINS} bins of the expert, of 256',
        'columns': ['condition', *_NAMES, 'mean of the four', 'exactly equal', 'L1'],
        'rows': [[name, *_row(score)] for name, score in scores.items()],
        'note': f'{count} held-out frames and tasks, freely decoded after the plan; L1 in '
                'normalised units, -1 to 1; the rotations are always zero and left out',
    }


def _row(score: ActionScore) -> list[str]:
    near, moving = score.near[list(_MOVING)], list(_MOVING)
    return [*(f'{share:.1%}' for share in near), f'{near.mean():.1%}',
            f'{score.exact[moving].mean():.1%}', f'{score.l1[moving].mean():.3f}']


def _questions_table(reader: Reader, frames: Frames, per_kind: int) -> dict[str, Any]:
    rows = []
    for kind, score in ask_questions(reader, frames, per_kind=per_kind, seed=_SEED).items():
        error = f'{np.median(score.error_px):.2f} px' if score.error_px.size else ''
        rows.append([kind.replace('_', ' '), f'{score.right}/{score.asked}',
                     f'{score.right / score.asked:.1%}', error])
    return {
        'title': 'Held-out questions',
        'columns': ['kind', 'right', 'share', 'median error of a place'],
        'rows': rows,
        'note': f'words must all be right; a place counts within {RIGHT_WITHIN_PX:g} of '
                f'{reader.image_size} px',
    }
