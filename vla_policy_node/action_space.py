"""
What a seven-number action means: order, units, frame, conventions and normalisation.

Knows nothing of tokens, models or ROS. The trainer walks physical -> normalised, the policy
walks back and then to the canonical form that the ROS message carries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Protocol

import numpy as np

from vla_policy_node import rotations

ACTION_DIM = 7
DIM_NAMES = ('x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper')
ROTATIONS = ('rotation_vector', 'fixed_axis_rpy')
GRIPPERS = ('open_is_one', 'open_is_zero')
# The gripper is already in [0, 1]; stretching it by its quantiles would move "closed".
DEFAULT_MASK = (True, True, True, True, True, True, False)

_EPSILON = 1e-8  # OpenVLA's, part of the published formula.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormStats:
    """
    Statistics of one data set's actions, in OpenVLA's q01/q99/mask form.

    q01, q99: (7,) float64 physical units, q01 <= q99, read-only. mask: (7,) bool, True where the
    dimension is normalised. extra: further statistics (mean, std, min, max), each (7,) floats.
    """

    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray
    extra: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check lengths, finiteness and order; raises ValueError naming the entry."""
        object.__setattr__(self, 'q01', _seven_floats(self.q01, 'q01'))
        object.__setattr__(self, 'q99', _seven_floats(self.q99, 'q99'))
        object.__setattr__(self, 'mask', _seven_bools(self.mask))
        swapped = np.flatnonzero(self.q01 > self.q99)
        if swapped.size:
            i = int(swapped[0])
            raise ValueError(
                f'norm stats: expected q01 <= q99 in dimension {DIM_NAMES[i]}, found '
                f'{self.q01[i]} > {self.q99[i]}; recompute the statistics')
        with np.errstate(over='ignore'):
            endless = np.flatnonzero(~np.isfinite(self.q99 - self.q01))
        if endless.size:
            i = int(endless[0])
            raise ValueError(
                f'norm stats: expected a finite q99 - q01 in dimension {DIM_NAMES[i]}, found '
                f'{self.q01[i]} and {self.q99[i]}; recompute the statistics')
        kept = {k: tuple(_seven_floats(v, k).tolist()) for k, v in self.extra.items()}
        object.__setattr__(self, 'extra', kept)

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """
        Map physical actions (..., 7) to (..., 7) float64 in [-1, 1], both ends inclusive.

        Masked dimensions: clip(2 (x - q01) / (q99 - q01 + 1e-8) - 1), and 0 where q01 equals
        q99. Other dimensions pass through, clipped. Raises ValueError on wrong shape or NaN.
        """
        actions = _finite_actions(actions)
        scaled = 2.0 * (actions - self.q01) / (self.q99 - self.q01 + _EPSILON) - 1.0
        # Only masked dimensions: an unmasked constant (a gripper always open) must stay itself.
        scaled = np.where(self.q01 == self.q99, 0.0, scaled)
        return np.clip(np.where(self.mask, scaled, actions), -1.0, 1.0)

    def unnormalize(self, values: np.ndarray) -> np.ndarray:
        """
        Map values (..., 7) in [-1, 1] to physical actions (..., 7) float64.

        Masked dimensions: 0.5 (v + 1) (q99 - q01) + q01; others pass through. Raises ValueError
        on wrong shape or non-finite values.
        """
        values = _finite_actions(values)
        physical = 0.5 * (values + 1.0) * (self.q99 - self.q01) + self.q01
        return np.where(self.mask, physical, values)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> 'NormStats':
        """Read one data set's 'action' entry; a missing mask means every dimension."""
        for name in ('q01', 'q99'):
            if name not in entry:
                raise ValueError(
                    f'norm stats: expected q01 and q99, found only {sorted(entry)}; '
                    'give the action entry of dataset_statistics.json')
        extra = {k: v for k, v in entry.items() if k not in ('q01', 'q99', 'mask')}
        mask = entry.get('mask', (True,) * ACTION_DIM)
        return cls(q01=entry['q01'], q99=entry['q99'], mask=mask, extra=extra)

    def to_dict(self) -> dict[str, list]:
        """Return the 'action' entry as plain lists, ready for JSON."""
        extra = {name: list(values) for name, values in self.extra.items()}
        return {'q01': self.q01.tolist(), 'q99': self.q99.tolist(), 'mask': self.mask.tolist(),
                **extra}

    @classmethod
    def from_actions(cls, actions: np.ndarray, mask: Any = DEFAULT_MASK) -> 'NormStats':
        """Compute the statistics of (N, 7) physical actions, N at least 1."""
        actions = _finite_actions(actions)
        if actions.ndim != 2 or len(actions) == 0:
            raise ValueError(f'norm stats: expected actions of shape (N, 7) with N >= 1, found '
                             f'{actions.shape}; pass every step of the data set')
        q01, q99 = np.quantile(actions, (0.01, 0.99), axis=0)
        extra = {'mean': actions.mean(0), 'std': actions.std(0),
                 'min': actions.min(0), 'max': actions.max(0)}
        return cls(q01=q01, q99=q99, mask=mask, extra=extra)


def select_norm_stats(
    norm_stats: Mapping[str, Mapping[str, Any]],
    unnorm_key: str | None,
) -> tuple[str, NormStats]:
    """
    Pick one data set's action statistics from OpenVLA's norm_stats layout.

    unnorm_key None is allowed only where there is exactly one data set. Returns (key, stats).
    Raises ValueError listing the known keys.
    """
    known = ', '.join(sorted(norm_stats)) or 'none'
    if unnorm_key is None:
        if len(norm_stats) != 1:
            raise ValueError(f'unnorm_key: expected one of [{known}], found none; '
                             'choose the data set of this robot')
        unnorm_key = next(iter(norm_stats))
    if unnorm_key not in norm_stats:
        raise ValueError(f'unnorm_key: expected one of [{known}], found {unnorm_key!r}; '
                         'choose a listed key')
    if 'action' not in norm_stats[unnorm_key]:
        raise ValueError(f"norm_stats[{unnorm_key!r}]: expected an 'action' entry, found "
                         f'{sorted(norm_stats[unnorm_key])}; add q01 and q99 under it')
    return unnorm_key, NormStats.from_dict(norm_stats[unnorm_key]['action'])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionSpace:
    """
    The physical meaning of the seven numbers of one checkpoint.

    frame: the frame the deltas are expressed in. rotation: form of dims 3..5, radians.
    gripper: which end of [0, 1] is open. period_s: time one delta takes, seconds.
    """

    frame: str
    rotation: str
    gripper: str
    period_s: float
    stats: NormStats

    def __post_init__(self) -> None:
        """Check every field; raises ValueError naming it."""
        if not self.frame:
            raise ValueError("action space: expected a frame name, found ''; name the frame the "
                             'deltas are expressed in')
        _check_choice('rotation', self.rotation, ROTATIONS)
        _check_choice('gripper', self.gripper, GRIPPERS)
        if not (np.isfinite(self.period_s) and self.period_s > 0.0):
            raise ValueError(f'action space: expected period_s > 0, found {self.period_s}; give '
                             'the seconds one delta takes')

    def to_canonical(self, actions: np.ndarray) -> np.ndarray:
        """
        Map physical actions (K, 7) to the form of the ROS message, (K, 7) float64.

        Out: [x, y, z] m, rotation vector rad, gripper in [0 closed, 1 open], clipped because
        its bins reach down to -1. Raises ValueError on wrong shape or non-finite values.
        """
        canonical = _finite_actions(actions).copy()
        if self.rotation == 'fixed_axis_rpy':
            canonical[..., 3:6] = rotation_vector_from_rpy(canonical[..., 3:6])
        if self.gripper == 'open_is_zero':
            canonical[..., 6] = 1.0 - canonical[..., 6]
        canonical[..., 6] = np.clip(canonical[..., 6], 0.0, 1.0)
        return canonical


class Conventions(Protocol):
    """The part of an action space that says in which form the numbers are."""

    rotation: str
    gripper: str


def from_canonical(actions: np.ndarray, space: Conventions) -> np.ndarray:
    """
    Map canonical actions (..., 7) to the conventions of an action space, float64.

    The inverse of ActionSpace.to_canonical for grippers within [0, 1].
    """
    physical = np.array(actions, np.float64)
    if space.rotation == 'fixed_axis_rpy':
        physical[..., 3:6] = rotations.to_fixed_axis_rpy(
            rotations.from_vectors(physical[..., 3:6]))
    if space.gripper == 'open_is_zero':
        physical[..., 6] = 1.0 - physical[..., 6]
    return physical


def rotation_vector_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """
    Turn fixed-axis roll, pitch, yaw (..., 3) rad into rotation vectors (..., 3) rad.

    The rotation is Rz(yaw) Ry(pitch) Rx(roll); the vector's length is in [0, pi].
    """
    half = 0.5 * np.asarray(rpy, dtype=np.float64)
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    w = cr * cp * cy + sr * sp * sy
    xyz = np.stack([
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ], axis=-1)
    # q and -q are one rotation; the one with w >= 0 gives the shorter way round.
    xyz, w = np.where(w[..., None] < 0.0, -xyz, xyz), np.abs(w)[..., None]
    sine = np.linalg.norm(xyz, axis=-1, keepdims=True)
    tiny = sine < 1e-12
    return xyz * np.where(tiny, 2.0, 2.0 * np.arctan2(sine, w) / np.where(tiny, 1.0, sine))


def _finite_actions(actions: np.ndarray) -> np.ndarray:
    array = np.asarray(actions, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != ACTION_DIM:
        raise ValueError(f'actions: expected shape (..., {ACTION_DIM}), found {array.shape}; '
                         f'give {", ".join(DIM_NAMES)}')
    if not np.isfinite(array).all():
        raise ValueError(f'actions: expected finite numbers, found {_first_odd(array)}; drop the '
                         'step or repair the source')
    return array


def _first_odd(array: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f'{array[index]} in dimension {DIM_NAMES[index[-1]]}'


def _seven_floats(values: Any, name: str) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (ACTION_DIM,):
        raise ValueError(f'norm stats: expected {ACTION_DIM} numbers in {name}, found shape '
                         f'{array.shape}; this suite drives {ACTION_DIM}-dimensional actions')
    if not np.isfinite(array).all():
        raise ValueError(f'norm stats: expected finite numbers in {name}, found '
                         f'{_first_odd(array)}; recompute the statistics')
    array.setflags(write=False)
    return array


def _seven_bools(values: Any) -> np.ndarray:
    array = np.array(values)
    if array.shape != (ACTION_DIM,) or array.dtype != np.bool_:
        raise ValueError(f'norm stats: expected {ACTION_DIM} booleans in mask, found {values!r}; '
                         'write true where the dimension is normalised')
    array.setflags(write=False)
    return array


def _check_choice(name: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise ValueError(f'action space: expected {name} one of [{", ".join(known)}], found '
                         f'{found!r}; choose a listed one')
