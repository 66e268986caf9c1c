"""
From the numbers of a data set to canonical deltas, as an action specification says.

A feature named observation.* says what was, so what a step reached is its next value. Any other
feature says what was commanded at the step itself.
"""

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np

from vla_policy_node import rotations
from vla_policy_node.action_space import rotation_vector_from_rpy
from vla_policy_node.training.sources.config import ActionSpec
from vla_policy_node.training.sources.config import GripperSpec
from vla_policy_node.training.sources.config import RotationSpec
from vla_policy_node.training.sources.config import TranslationSpec

_OBSERVED = 'observation'
_UNTURNED = np.array([0.0, 0.0, 0.0, 1.0])


def canonical_actions(
    columns: Mapping[str, np.ndarray], spec: ActionSpec, *, fps: float, stride: int,
) -> np.ndarray:
    """
    Return the (N, 7) float64 actions of one episode, each over the `stride` steps from it on.

    columns: feature -> (N, D). Near the end of the episode an action takes the steps that are
    left. Not finite where the data are not, or where a quaternion is zero.
    """
    rate = 1.0 / fps if spec.mode == 'velocity' else 1.0
    moved = rate * spec.translation.scale * _picked(columns, spec.translation)
    turned = _quaternions(columns, spec.rotation, rate, len(moved))
    if spec.mode == 'absolute':
        moved = _changes(moved, spec.translation.feature, np.subtract, 0.0)
        if spec.rotation:
            turned = _changes(turned, spec.rotation.feature, _turn, _UNTURNED)
    places = np.minimum(np.arange(len(moved)) + stride, len(moved)) - 1
    return np.concatenate([
        _summed(moved, stride), rotations.to_vectors(_composed(turned, stride)),
        _gripper(columns, spec.gripper, len(moved))[places, None]], axis=1)


def _picked(columns: Mapping[str, np.ndarray], part: TranslationSpec | RotationSpec) -> np.ndarray:
    return columns[part.feature][:, list(part.indices)].astype(np.float64)


def _quaternions(
    columns: Mapping[str, np.ndarray], spec: RotationSpec | None, rate: float, count: int,
) -> np.ndarray:
    if spec is None:
        return np.tile(_UNTURNED, (count, 1))
    values = _picked(columns, spec)
    if spec.form == 'quaternion_xyzw':
        with np.errstate(invalid='ignore', divide='ignore'):
            return values / np.linalg.norm(values, axis=1, keepdims=True)
    values *= rate * spec.scale
    if spec.form == 'fixed_axis_rpy':
        values = rotation_vector_from_rpy(values)
    return rotations.from_vectors(values)


def _changes(
    poses: np.ndarray, feature: str, difference: Callable, still: np.ndarray | float,
) -> np.ndarray:
    """Return what each step does, (N, D), from where it went or from what it was told."""
    changes = np.full_like(poses, still)
    places = slice(None, -1) if feature.startswith(_OBSERVED) else slice(1, None)
    changes[places] = difference(poses[1:], poses[:-1])
    return changes


def _turn(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return rotations.multiply(after, rotations.conjugate(before))


def _summed(moved: np.ndarray, stride: int) -> np.ndarray:
    total = np.zeros_like(moved)
    for later in range(min(stride, len(moved))):
        total[:len(moved) - later] += moved[later:]
    return total


def _composed(turned: np.ndarray, stride: int) -> np.ndarray:
    total = np.tile(_UNTURNED, (len(turned), 1))
    for later in range(min(stride, len(turned))):
        earlier = total[:len(turned) - later]
        total[:len(turned) - later] = rotations.multiply(turned[later:], earlier)
    return total


def _gripper(
    columns: Mapping[str, np.ndarray], spec: GripperSpec | None, count: int,
) -> np.ndarray:
    if spec is None:
        return np.ones(count)
    values = columns[spec.feature][:, spec.index].astype(np.float64)
    if spec.feature.startswith(_OBSERVED):
        values = np.append(values[1:], values[-1])
    return np.clip((values - spec.closed) / (spec.open - spec.closed), 0.0, 1.0)
