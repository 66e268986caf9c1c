"""
Pictures as OpenVLA's own image processor prepares them, with Pillow alone.

Written after the published behaviour of its resizing (an anti-aliased Pillow filter), cropping
and normalising; preprocessor_config.json is read as it is and written back as it was.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import torch

from vla_policy_node.policy.openvla.layout import RESIZE_STRATEGIES
from vla_policy_node.policy.openvla.layout import tower_layouts
from vla_policy_node.policy.types import PolicyError

PREPROCESSOR_NAME = 'preprocessor_config.json'
_FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'lanczos': Image.Resampling.LANCZOS,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'box': Image.Resampling.BOX,
    'hamming': Image.Resampling.HAMMING,
}


class OpenVLAImageProcessor:
    """
    Pictures -> pixels; one view per vision tower, stacked along the channels.

    settings: preprocessor_config.json, of which input_sizes ([3, side, side]), interpolations,
    means, stds and image_resize_strategy are read.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        strategy = settings.get('image_resize_strategy', 'letterbox')
        if strategy not in RESIZE_STRATEGIES:
            raise PolicyError(f'expected image_resize_strategy to be one of '
                              f'{", ".join(RESIZE_STRATEGIES)}, found {strategy!r}; correct '
                              f'{PREPROCESSOR_NAME}')
        self._strategy = strategy
        self._views = _views(settings)
        # The original fills with the last tower's mean, cut off to whole numbers.
        self._fill = tuple(int(255 * mean) for mean in settings['means'][-1])

    @classmethod
    def from_model_config(cls, raw: Mapping[str, Any]) -> 'OpenVLAImageProcessor':
        """Return what a config.json without preprocessor_config.json stands for."""
        towers = tower_layouts(raw)
        return cls({
            'image_resize_strategy': raw.get('image_resize_strategy', 'letterbox'),
            'input_sizes': [[3, tower.size, tower.size] for tower in towers],
            'interpolations': ['bicubic'] * len(towers),
            'means': [list(tower.mean) for tower in towers],
            'stds': [list(tower.std) for tower in towers],
            'use_fused_vision_backbone': len(towers) > 1,
        })

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the side of each tower's view in pixels."""
        return tuple(view['side'] for view in self._views)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write preprocessor_config.json."""
        text = json.dumps(self.settings, indent=2) + '\n'
        (Path(directory) / PREPROCESSOR_NAME).write_text(text, encoding='utf-8')

    def __call__(
        self, images: Sequence[np.ndarray | Image.Image], return_tensors: str = 'pt'
    ) -> dict[str, torch.Tensor]:
        """(H, W, 3) uint8 each -> pixel_values (B, 3 per tower, side, side) float32."""
        del return_tensors
        return {'pixel_values': torch.stack([self._prepare(image) for image in images])}

    def _prepare(self, image: np.ndarray | Image.Image) -> torch.Tensor:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture = picture.convert('RGB')
        if self._strategy == 'letterbox':
            picture = _letterbox(picture, self._fill)
        whole = self._strategy == 'resize-naive'
        return torch.cat([_view(picture, whole=whole, **view) for view in self._views])


def _views(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how each tower sees a picture."""
    try:
        columns = [settings[name] for name in ('input_sizes', 'means', 'stds')]
        filters = settings.get('interpolations') or ['bicubic'] * len(columns[0])
        return [
            {'side': int(size[-1]), 'resample': _FILTERS[name],
             'mean': torch.tensor(mean).view(3, 1, 1), 'std': torch.tensor(std).view(3, 1, 1)}
            for size, mean, std, name in zip(*columns, filters, strict=True)]
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise PolicyError(
            'expected input_sizes, interpolations, means and stds with one entry per vision '
            f'tower, found {error!r}; correct {PREPROCESSOR_NAME}') from error


def _letterbox(picture: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """Make a picture square with equal borders; an odd difference leaves one pixel out."""
    width, height = picture.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    padded = Image.new('RGB', (width + 2 * left, height + 2 * top), fill)
    padded.paste(picture, (left, top))
    return padded


def _view(
    picture: Image.Image, *, side: int, resample: Image.Resampling, mean: torch.Tensor,
    std: torch.Tensor, whole: bool,
) -> torch.Tensor:
    """(3, side, side) float32 of the whole picture, squeezed, or of its centre."""
    width, height = picture.size
    size = (side, side)
    if not whole:
        shorter = min(width, height)
        size = (side * width // shorter, side * height // shorter)
    resized = picture if size == picture.size else picture.resize(size, resample)
    left, top = (round((extent - side) / 2.0) for extent in size)
    pixels = np.array(resized.crop((left, top, left + side, top + side)))
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0 - mean) / std
