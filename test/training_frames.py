"""Hand-made frames for the training tests: no simulator needed."""

import numpy as np

from vla_policy_node.simulation import TASKS
from vla_policy_node.training.frames import COLOURS
from vla_policy_node.training.frames import Frames


def make_frames(count: int = 2, size: int = 64) -> Frames:
    """Red at the upper left and blue at the lower right of every grey picture, none else."""
    images = np.full((count, size, size, 3), 128, np.uint8)
    images[:, 8:16, 8:16] = (230, 15, 15)
    images[:, 40:48, 48:56] = (20, 45, 240)
    blocks = np.full((count, 4, 3), np.nan, np.float32)
    blocks[:, 0], blocks[:, 2] = (0.4, -0.1, 0.02), (0.5, 0.1, 0.02)
    uv = np.full((count, 4, 2), np.nan, np.float32)
    uv[:, 0], uv[:, 2] = (0.190, 0.190), (0.815, 0.690)
    actions = np.full((count, len(TASKS), 7), np.nan, np.float32)
    for place, task in enumerate(TASKS):
        if task.colour in ('red', 'blue'):
            side = 0.02 if task.colour == 'blue' else -0.02
            actions[:, place] = (0.01, side, -0.01, 0.0, 0.0, 0.0, 1.0)
    return Frames(
        images=images, blocks=blocks, tool=np.full((count, 3), 0.1, np.float32),
        opening=np.ones(count, np.float32), held=np.full(count, -1, np.int8), block_uv=uv,
        tool_uv=np.full((count, 2), 0.5, np.float32), actions=actions,
        scene=np.arange(count, dtype=np.int32))


RED, GREEN, BLUE = (COLOURS.index(name) for name in ('red', 'green', 'blue'))
