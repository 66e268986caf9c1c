"""Unit quaternions (4,) float64 in the order w x y z, and rotation vectors (3,) [rad]."""

import numpy as np


def from_rotation_vector(vector: np.ndarray) -> np.ndarray:
    """Return the quaternion of a rotation by |vector| about vector."""
    half = 0.5 * float(np.linalg.norm(vector))
    # np.sinc(x) is sin(pi x) / (pi x), smooth through zero.
    return np.concatenate(([np.cos(half)], 0.5 * np.sinc(half / np.pi) * vector))


def to_rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """Return the shortest rotation vector, of norm at most pi."""
    w, axis = quaternion[0], quaternion[1:]
    if w < 0:
        w, axis = -w, -axis
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return 2.0 * axis
    return axis * (2.0 * np.arctan2(sine, w) / sine)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rotation b followed by the rotation a, both in fixed axes."""
    w = a[0] * b[0] - a[1:] @ b[1:]
    axis = a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return normalise(np.concatenate(([w], axis)))


def conjugate(quaternion: np.ndarray) -> np.ndarray:
    """Return the opposite rotation."""
    return quaternion * (1.0, -1.0, -1.0, -1.0)


def normalise(quaternion: np.ndarray) -> np.ndarray:
    """Return the quaternion at unit norm."""
    return quaternion / np.linalg.norm(quaternion)
