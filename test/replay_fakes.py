"""A policy that acts by the brightness of what it sees, and bags for it; needs no model."""

from pathlib import Path

import bag_folders as bags
import numpy as np

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import Observation

# The brightness at which decoding fails.
BLIND = 255
PERIOD_S = 0.2
CONFIG = """
cameras: {primary: /camera/image_raw}
actions: {kind: chunk, frame: base}
instruction: {text: pick up the red block}
frames: {select: chunks}
"""


class BrightnessPolicy:
    """Moves along x by a millimetre per level, at most 100 mm; K equal steps."""

    camera_names = ('primary',)
    checkpoint_name = 'brightness'

    def __init__(self, horizon: int = 1, offset_m: float = 0.0, **space: object) -> None:
        """Take the number of steps and what is added to the motion."""
        stats = NormStats(q01=[-0.1] * 6 + [0.0], q99=[0.1] * 6 + [1.0],
                          mask=[True] * 6 + [False], extra={'mean': (0.01,) + (0.0,) * 5 + (0.5,)})
        self.action_space = ActionSpace(**{
            'frame': 'base', 'rotation': 'rotation_vector', 'gripper': 'open_is_one',
            'period_s': PERIOD_S, 'stats': stats, **space})
        self.action_tokenizer = AddedTokens(first_id=1000, horizon=horizon)
        self.seen: list[Observation] = []
        self.closed = False
        self._offset_m = offset_m

    def infer(self, observation: Observation) -> ActionChunk:
        """Return K steps along x, gripper open; DecodeError for BLIND."""
        self.seen.append(observation)
        level = int(observation.images['primary'][0, 0, 0])
        if level == BLIND:
            raise DecodeError('it is too bright')
        motion = [1e-3 * level + self._offset_m, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        rows = np.tile(motion, (self.action_tokenizer.horizon, 1))
        ids = np.array(self.action_tokenizer.encode(self.action_space.stats.normalize(rows)))
        decoded = self.action_tokenizer.decode(ids)
        return ActionChunk(
            actions=self.action_space.to_canonical(
                self.action_space.stats.unnormalize(decoded.actions)),
            token_ids=ids.reshape(-1, 7), all_token_ids=ids,
            confidence=np.full(rows.shape, 0.5, np.float32), plan=f'see {level}',
            timing_ms={'preprocess': 1.0, 'total': 2.0})

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def write_bag(path: Path, levels: list[int], *, first_s: float = 0.0) -> Path:
    """Write a bag of frames, each with a chunk that moves along x by 1 mm per level."""
    return bags.write(path, [message for n, level in enumerate(levels) for message in (
        bags.image(first_s + 0.2 * n, level),
        bags.chunk(first_s + 0.2 * n + 0.05, [[1e-3 * level, 0, 0, 0, 0, 0, 1.0]],
                   observed_s=first_s + 0.2 * n))])
