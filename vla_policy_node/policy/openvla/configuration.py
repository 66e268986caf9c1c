"""
config.json of OpenVLA and the shapes of its weights -> the configuration of our model.

The shapes say how wide and deep a vision tower is, so that any tower of the family is read and
not only those with a well-known name.
"""

from collections.abc import Mapping
from pathlib import Path
import re
from typing import Any

from safetensors import safe_open
from transformers import LlamaConfig
from transformers import PreTrainedConfig

from vla_policy_node.policy.checkpoint import read_json
from vla_policy_node.policy.checkpoint import weight_files
from vla_policy_node.policy.openvla.layout import MODEL_TYPE
from vla_policy_node.policy.openvla.layout import tower_layouts
from vla_policy_node.policy.openvla.layout import TowerLayout
from vla_policy_node.policy.types import PolicyError

TOWER_NAMES = ('featurizer', 'fused_featurizer')
_PREFIX = 'vision_backbone.'
# What is not kept: their code, what vla_config.json says, and what is written anew.
_DROPPED = ('auto_map', 'norm_stats', 'architectures', 'model_type', 'transformers_version',
            'robot_only')
# timm's: CLIP keeps PyTorch's own, all others say so.
_EPSILON, _EPSILON_CLIP = 1e-6, 1e-5

Shapes = Mapping[str, tuple[int, ...]]


class OpenVLAConfig(PreTrainedConfig):
    """
    The model's sizes.

    :param vision_towers: per tower the arguments of vision.VisionTower, as JSON.
    :param robot_only: tuned on robot data alone, so the words of its answers mean little.
    """

    model_type = MODEL_TYPE
    sub_configs_defaults = {'text_config': LlamaConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_towers: list | None = None
    robot_only: bool = False
    tie_word_embeddings: bool = False

    @property
    def image_columns(self) -> int:
        """Return how many positions of the language model a picture takes; it has no ids."""
        first = self.vision_towers[0]
        return (first['size'] // first['patch']) ** 2


def read_config(directory: Path) -> OpenVLAConfig:
    """Return the configuration of a directory; PolicyError naming what does not fit."""
    raw = read_json(directory / 'config.json')
    text = dict(raw.get('text_config') or {})
    kind = text.pop('model_type', 'llama')
    if kind != 'llama':
        raise PolicyError(
            f'expected the language model of {directory} to be a llama, found {kind!r}; other '
            'OpenVLA variants are not supported')
    fields = {name: value for name, value in raw.items()
              if name not in _DROPPED and not name.startswith('_')}
    if 'vision_towers' not in raw:  # Otherwise this suite has written it.
        shapes = weight_shapes(directory)
        fields['vision_towers'] = [
            _tower(shapes, f'{_PREFIX}{name}.', layout)
            for name, layout in zip(TOWER_NAMES, tower_layouts(raw), strict=False)]
        fields['robot_only'] = True
    fields['text_config'] = LlamaConfig(**text)
    return OpenVLAConfig(**fields)


def weight_shapes(directory: Path) -> Shapes:
    """Return {name: shape} of every tensor, from the headers of the files."""
    shapes = {}
    for path in weight_files(directory):
        with safe_open(path, framework='np') as weights:
            for name in weights.keys():  # noqa: SIM118, it is no mapping
                shapes[name] = tuple(weights.get_slice(name).get_shape())
    return shapes


def _tower(shapes: Shapes, prefix: str, layout: TowerLayout) -> dict[str, Any]:
    """Return the arguments of one tower."""
    def shape(name: str) -> tuple[int, ...]:
        found = shapes.get(f'{prefix}{name}')
        if found is None:
            raise PolicyError(f'expected the weight {prefix}{name} of vision tower '
                              f'{layout.timm_id}, found none; the checkpoint is incomplete')
        return found

    dim, _, patch, _ = shape('patch_embed.proj.weight')
    blocks = {int(found.group(1)) for name in shapes
              if (found := re.match(rf'{re.escape(prefix)}blocks\.(\d+)\.', name))}
    pre_norm = f'{prefix}norm_pre.weight' in shapes
    tower = {
        'size': layout.size, 'patch': patch, 'dim': dim,
        # The last block is never run: the features are those before it.
        'blocks': max(blocks, default=0),
        'heads': _checked_heads(layout, dim),
        'hidden': shape('blocks.0.mlp.fc1.weight')[0],
        'positions': shape('pos_embed')[1],
        'class_token': f'{prefix}cls_token' in shapes,
        'registers': shapes.get(f'{prefix}reg_token', (1, 0))[1],
        'layer_scale': f'{prefix}blocks.0.ls1.scale_factor' in shapes,
        'pre_norm': pre_norm,
        'patch_bias': f'{prefix}patch_embed.proj.bias' in shapes,
        'activation': layout.activation,
        'epsilon': _EPSILON_CLIP if pre_norm else _EPSILON,
    }
    _check_positions(tower, layout)
    return tower


def _checked_heads(layout: TowerLayout, dim: int) -> int:
    if layout.heads is None or dim % layout.heads:
        raise PolicyError(
            f'expected the number of attention heads of vision tower {layout.timm_id} to divide '
            f'{dim}, found {layout.heads}; give vision_num_heads in config.json')
    return layout.heads


def _check_positions(tower: Mapping[str, Any], layout: TowerLayout) -> None:
    patches = (tower['size'] // tower['patch']) ** 2
    prefix = tower['class_token'] + tower['registers']
    if tower['positions'] not in (patches, patches + prefix):
        raise PolicyError(
            f'expected {patches} positions in vision tower {layout.timm_id} for pictures of '
            f'{tower["size"]} pixels, found {tower["positions"]}; correct image_sizes in '
            'config.json')
