"""
What config.json of an original OpenVLA directory says, and what it leaves to well-known names.

Knows nothing of torch or weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import Any

from vla_policy_node.policy.types import PolicyError

MODEL_TYPE = 'openvla'
STATISTICS_NAME = 'dataset_statistics.json'
# The vocabulary is padded to a multiple of this, and action ids count back from before that.
DEFAULT_PADDING = 64
RESIZE_STRATEGIES = ('resize-naive', 'letterbox', 'resize-crop')

_DINO = 'vit_large_patch14_reg4_dinov2.lvd142m'
_SIGLIP = 'vit_so400m_patch14_siglip_'
_CLIP = 'vit_large_patch14_clip_'
# vision_backbone_id -> side of the picture in pixels, and timm's name of each tower.
_BACKBONES: dict[str, tuple[int, tuple[str, ...]]] = {
    'clip-vit-l': (224, (f'{_CLIP}224.openai',)),
    'clip-vit-l-336px': (336, (f'{_CLIP}336.openai',)),
    'dinov2-vit-l': (224, (_DINO,)),
    'in1k-vit-l': (224, ('vit_large_patch16_224.augreg_in21k_ft_in1k',)),
    'siglip-vit-so400m': (224, (f'{_SIGLIP}224',)),
    'siglip-vit-so400m-384px': (384, (f'{_SIGLIP}384',)),
    'dinoclip-vit-l-336px': (336, (_DINO, f'{_CLIP}336.openai')),
    'dinosiglip-vit-so-224px': (224, (_DINO, f'{_SIGLIP}224')),
    'dinosiglip-vit-so-384px': (384, (_DINO, f'{_SIGLIP}384')),
}
# The number of heads is the one thing that the shapes of the weights do not tell.
_HEADS = {'tiny': 3, 'small': 6, 'base': 12, 'large': 16, 'so400m': 16, 'huge': 16, 'giant': 24}
# Words in timm's name -> mean and standard deviation of the pixels; all others take one half.
_PIXELS = {
    'dinov2': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    '_clip': ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerLayout:
    """One vision tower: timm's name, side of its picture in pixels, pixels and activation."""

    timm_id: str
    size: int
    heads: int | None
    activation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def tower_layouts(raw: Mapping[str, Any]) -> tuple[TowerLayout, ...]:
    """Return the towers of a config.json; what it spells out goes before the well-known."""
    backbone = raw.get('vision_backbone_id', 'siglip-vit-so400m')
    side, names = _BACKBONES.get(backbone, (None, ()))
    names = tuple(raw.get('timm_model_ids') or names)
    if not names:
        raise PolicyError(
            f'expected vision_backbone_id to be one of {", ".join(_BACKBONES)}, or timm_model_ids '
            f'beside it, found {backbone!r}; correct config.json')
    fused = raw.get('use_fused_vision_backbone')
    names = names[:2 if (len(names) > 1 if fused is None else fused) else 1]
    sizes = raw.get('image_sizes') or [side] * len(names)
    activations = raw.get('timm_override_act_layers') or _activations(backbone, len(names))
    heads = raw.get('vision_num_heads') or [_heads(name) for name in names]
    _check_lengths(len(names), image_sizes=sizes, timm_override_act_layers=activations,
                   vision_num_heads=heads)
    return tuple(
        TowerLayout(
            timm_id=name, size=_side(sizes[place]), heads=heads[place],
            activation=activations[place] or 'gelu', mean=_pixels(name)[0], std=_pixels(name)[1])
        for place, name in enumerate(names))


def base_vocabulary(raw: Mapping[str, Any]) -> int:
    """Return the ids before the padding; the actions are the last 256 of them."""
    padded = (raw.get('text_config') or {}).get('vocab_size', 32000 + DEFAULT_PADDING)
    return padded - raw.get('pad_to_multiple_of', DEFAULT_PADDING)


def _activations(backbone: str, count: int) -> list[str | None]:
    """Return what replaces each tower's activation: of CLIP's, which is always the last."""
    clip = backbone.startswith(('clip-', 'dinoclip-'))
    return [None] * (count - 1) + ['quick_gelu' if clip else None]


def _heads(name: str) -> int | None:
    size = re.match(r'vit_([a-z0-9]+)_', name)
    return _HEADS.get(size.group(1)) if size else None


def _pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return next((pixels for word, pixels in _PIXELS.items() if word in name), _HALF)


def _side(size: Any) -> int:
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise PolicyError(f'expected image_sizes of square pictures, found {size!r}; correct '
                          'config.json')
    return sides.pop()


def _check_lengths(count: int, **fields: Any) -> None:
    for name, values in fields.items():
        if not isinstance(values, (list, tuple)) or len(values) < count:
            raise PolicyError(f'expected {name} to list {count} entries, one per vision tower, '
                              f'found {values!r}; correct config.json')
