"""Rotations of many steps at a time: unit quaternions (N, 4) in the order x y z w, float64."""

import numpy as np


def from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Turn rotation vectors (N, 3) rad into quaternions."""
    half = 0.5 * np.linalg.norm(vectors, axis=-1, keepdims=True)
    # np.sinc(x) is sin(pi x) / (pi x), smooth through zero.
    return np.concatenate([0.5 * np.sinc(half / np.pi) * vectors, np.cos(half)], axis=-1)


def to_vectors(quaternions: np.ndarray) -> np.ndarray:
    """Turn quaternions into the shortest rotation vectors (N, 3) rad, of norm at most pi."""
    shortest = np.where(quaternions[..., 3:] < 0.0, -quaternions, quaternions)
    axis, cosine = shortest[..., :3], shortest[..., 3:]
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    tiny = sine < 1e-12
    return axis * np.where(tiny, 2.0, 2.0 * np.arctan2(sine, cosine) / np.where(tiny, 1.0, sine))


def to_fixed_axis_rpy(quaternions: np.ndarray) -> np.ndarray:
    """
    Turn quaternions into fixed-axis roll, pitch, yaw (N, 3) rad, pitch in [-pi/2, pi/2].

    The inverse of action_space.rotation_vector_from_rpy.
    """
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    return np.stack([
        np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
        np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0)),
        np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)),
    ], axis=-1)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rotations b followed by a, both about fixed axes."""
    (va, wa), (vb, wb) = (a[..., :3], a[..., 3:]), (b[..., :3], b[..., 3:])
    vector = wa * vb + wb * va + np.cross(va, vb)
    return np.concatenate([vector, wa * wb - (va * vb).sum(-1, keepdims=True)], axis=-1)


def conjugate(quaternions: np.ndarray) -> np.ndarray:
    """Return the opposite rotations."""
    return quaternions * (-1.0, -1.0, -1.0, 1.0)


def rotate(quaternions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) turned by quaternions."""
    axis, cosine = quaternions[..., :3], quaternions[..., 3:]
    across = 2.0 * np.cross(axis, vectors)
    return vectors + cosine * across + np.cross(axis, across)
