"""
Random crops and colours for the robot's training pictures (numpy, OpenCV).

The same crop and resize as in execution, at another place; what is drawn depends only on the
random generator that is given.
"""

import cv2
import numpy as np

from vla_policy_node import images
from vla_policy_node.training.finetune.config import AugmentationConfig
from vla_policy_node.vla_config import CameraConfig

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Augmenter:
    """Prepares pictures as execution does, with random crop and colours on top."""

    def __init__(self, config: AugmentationConfig) -> None:
        self._config = config

    def __call__(
        self, rgb: np.ndarray, camera: CameraConfig, rng: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (h, w, 3) uint8 RGB of the camera's size."""
        box = images.centre_box(*rgb.shape[:2], self._config.crop_area)
        if self._config.crop_area < 1.0:
            box = random_place(box, rgb.shape, rng)
            rgb = images.prepare(rgb, camera, box=box)
        else:
            rgb = images.prepare(rgb, camera)
        return self._recoloured(rgb, rng)

    def _recoloured(self, rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        wanted = self._config
        strengths = (wanted.brightness, wanted.contrast, wanted.saturation)
        if not any((*strengths, wanted.hue)):
            return rgb
        brightness, contrast, saturation = (rng.uniform(1.0 - s, 1.0 + s) for s in strengths)
        pixels = rgb.astype(np.float32) * brightness
        pixels = contrast * pixels + (1.0 - contrast) * (pixels @ _GREY).mean()
        pixels = saturation * pixels + (1.0 - saturation) * (pixels @ _GREY)[..., None]
        turned = np.clip(pixels.round(), 0, 255).astype(np.uint8)
        return _turn_hue(turned, rng.uniform(-wanted.hue, wanted.hue)) if wanted.hue else turned


def random_place(
    box: images.Box, shape: tuple[int, ...], rng: np.random.Generator
) -> images.Box:
    """Return a box of the same size anywhere in an image of this shape."""
    _, _, height, width = box
    top = int(rng.integers(shape[0] - height + 1))
    left = int(rng.integers(shape[1] - width + 1))
    return top, left, height, width


def _turn_hue(rgb: np.ndarray, turns: float) -> np.ndarray:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV_FULL)  # hue in 256 steps, so it wraps by itself
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
