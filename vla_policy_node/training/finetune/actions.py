"""
Canonical actions <-> the convention and the normalised range that the model is trained in.

The way back is the policy's: NormStats.unnormalize, then ActionSpace.to_canonical.
"""

from collections.abc import Sequence

import numpy as np

from vla_policy_node.action_space import NormStats
from vla_policy_node.training.sources.records import RobotSource
from vla_policy_node.vla_config import ActionSpaceConfig


def statistics_of(sources: Sequence[RobotSource], space: ActionSpaceConfig) -> NormStats:
    """Compute q01 and q99 over the actions of all sources, in the convention of `space`."""
    return NormStats.from_actions(
        np.concatenate([from_canonical(source.actions(), space) for source in sources]))


def from_canonical(actions: np.ndarray, space: ActionSpaceConfig) -> np.ndarray:
    """(..., 7) canonical -> (..., 7) in the rotation form and gripper convention of `space`."""
    converted = np.array(actions, np.float64)
    if space.rotation == 'fixed_axis_rpy':
        converted[..., 3:6] = rpy_from_rotation_vector(converted[..., 3:6])
    if space.gripper == 'open_is_zero':
        converted[..., 6] = 1.0 - converted[..., 6]
    return converted


def rpy_from_rotation_vector(vectors: np.ndarray) -> np.ndarray:
    """
    Turn rotation vectors (..., 3) rad into fixed-axis roll, pitch, yaw (..., 3) rad.

    The inverse of action_space.rotation_vector_from_rpy; pitch is in [-pi/2, pi/2].
    """
    vectors = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(vectors * 0.5 * np.sinc(angle / (2.0 * np.pi)), -1, 0)
    w = np.cos(0.5 * angle[..., 0])
    return np.stack([
        np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
        np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0)),
        np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)),
    ], axis=-1)
