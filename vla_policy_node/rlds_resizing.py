"""
Pictures resized and cropped as the RLDS loaders of Octo and OpenVLA, and OpenVLA's evaluation, do.

They resize first, with an anti-aliased Lanczos filter (tf.image.resize, lanczos3), and cut the
crop out of the small picture, which is then enlarged to its size again (tf.image.crop_and_resize,
bilinear). A fine-tune with augmentation has seen pictures made like that and no others.
"""

from functools import lru_cache

import numpy as np

_RADIUS = 3.0
# What an 8-bit picture of TensorFlow is multiplied with on its way back from [0, 1].
_TO_8_BIT = 255.5


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB as (height, width, 3) uint8, `size` being (height, width)."""
    if rgb.shape[:2] == tuple(size):
        return rgb
    pixels = _apply(_lanczos(rgb.shape[0], size[0]), _lanczos(rgb.shape[1], size[1]), rgb)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def zoom(rgb: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """
    Return what is in a box, enlarged to the size of the picture.

    :param rgb: (H, W, 3) uint8. box: top, left, height, width as shares of height and width.
    """
    top, left, height, width = box
    rows = _bilinear(rgb.shape[0], top, top + height)
    columns = _bilinear(rgb.shape[1], left, left + width)
    pixels = _apply(rows, columns, rgb)
    return (np.clip(pixels / 255.0, 0.0, 1.0) * _TO_8_BIT).astype(np.uint8)


def _apply(rows: np.ndarray, columns: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) float32: (h, H) rows times (H, W, 3) picture times (w, W) columns."""
    height, width, channels = rgb.shape
    narrow = rows @ rgb.reshape(height, width * channels).astype(np.float32)
    # One product of two matrices; one per row of pixels takes three times as long.
    turned = narrow.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
    return (columns @ turned).reshape(len(columns), -1, channels).transpose(1, 0, 2)


@lru_cache(maxsize=16)
def _lanczos(length: int, wanted: int) -> np.ndarray:
    """Return (wanted, length) float32: the weights of the old pixels in each new one."""
    scale = length / wanted
    reach = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    distances = (np.arange(length) + 0.5 - centres[:, None]) / reach
    weights = np.sinc(distances) * np.sinc(distances / _RADIUS)
    weights[np.abs(distances) >= _RADIUS] = 0.0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=16)
def _bilinear(length: int, start: float, end: float) -> np.ndarray:
    """Return (length, length) float32: weights of the old pixels; start and end are shares."""
    places = np.linspace(start, end, length) * (length - 1)
    below = np.clip(np.floor(places).astype(int), 0, length - 1)
    above = np.minimum(below + 1, length - 1)
    share = np.clip(places - below, 0.0, 1.0)
    weights = np.zeros((length, length), np.float32)
    np.add.at(weights, (np.arange(length), below), 1.0 - share)
    np.add.at(weights, (np.arange(length), above), share)
    return weights
