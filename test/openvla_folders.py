"""
OpenVLA checkpoints in the original layout, for tests.

test/data/openvla_tiny holds a random model and what OpenVLA's own code made of it (transformers
4.40.1, timm 0.9.10, float32): of embeddings and head the rows that matter.
"""

import gzip
import json
from pathlib import Path
import shutil

import numpy as np
from safetensors.torch import load_file
from safetensors.torch import save_file
import torch
from transformers import LlamaConfig

from vla_policy_node.policy.openvla.configuration import OpenVLAConfig
from vla_policy_node.policy.openvla.model import OpenVLAForActionPrediction

# Two threads on matrices this small cost far more than they give beside any other load.
torch.set_num_threads(1)

DATA = Path(__file__).parent / 'data' / 'openvla_tiny'
ROWS = 32064
_TABLES = {
    'embedding': 'language_model.model.embed_tokens.weight',
    'head': 'language_model.lm_head.weight',
}
_TOWERS = {
    'dinov2': {'dim': 64, 'heads': 2, 'positions': 16, 'class_token': True, 'registers': 4,
               'layer_scale': True, 'pre_norm': False, 'activation': 'gelu', 'epsilon': 1e-6},
    'siglip': {'dim': 48, 'heads': 3, 'positions': 16, 'class_token': False, 'registers': 0,
               'layer_scale': False, 'pre_norm': False, 'activation': 'gelu', 'epsilon': 1e-6},
    'clip': {'dim': 32, 'heads': 2, 'positions': 17, 'class_token': True, 'registers': 0,
             'layer_scale': False, 'pre_norm': True, 'activation': 'quick_gelu',
             'epsilon': 1e-5},
}
SIZE = 56
_PATCH = 14


def reference_cases():
    """Return what the original made of five pictures and instructions."""
    arrays = np.load(DATA / 'cases.npz')
    numbers = sorted({name.rsplit('_', 1)[1] for name in arrays})
    names = ('image', 'instruction', 'input_ids', 'pixel_values', 'logits', 'tokens', 'action')
    return [{name: arrays[f'{name}_{number}'] for name in names} for number in numbers]


def save_reference(folder: Path) -> Path:
    """Write the checkpoint that the original's outputs belong to."""
    _save_files(folder)
    save_file(reference_weights(), folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder


def reference_weights():
    """Return its weights; rows that no case needs are random."""
    arrays = dict(np.load(DATA / 'weights.npz'))
    for table, name in _TABLES.items():
        rows = arrays.pop(f'{table}_rows')
        whole = np.random.default_rng(0).normal(0.0, 0.02, (ROWS, rows.shape[1]))
        whole[arrays.pop(f'{table}_ids')] = rows
        arrays[name] = whole.astype(np.float32)
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def tower(kind, **changes):
    """Return the arguments of a small vision tower of that kind."""
    return {'size': SIZE, 'patch': _PATCH, 'blocks': 2, 'hidden': 64,
            'patch_bias': kind != 'clip', **_TOWERS[kind], **changes}


def small_model(*kinds, seed=0):
    """Return a random model with these vision towers."""
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=ROWS, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, initializer_range=0.3, max_position_embeddings=256,
        pad_token_id=32000)
    model = OpenVLAForActionPrediction(OpenVLAConfig(
        vision_towers=[tower(kind) for kind in kinds], text_config=text))
    with torch.no_grad():
        for part in (model.vision_backbone, model.projector):
            for parameter in part.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def save_original(folder: Path, *kinds, dtype=torch.float32, **config) -> Path:
    """Write a random model in the original layout, unused weights included; config: changes."""
    model = small_model(*kinds)
    _save_files(folder)
    (folder / 'preprocessor_config.json').unlink()
    raw = {
        **json.loads((DATA / 'config.json').read_text()),
        'vision_backbone_id': {2: 'dinosiglip-vit-so-224px'}.get(len(kinds), f'{kinds[0]}-vit-l'),
        'use_fused_vision_backbone': len(kinds) > 1,
        'timm_model_ids': [f'vit_tinytest_patch14_{kind}' for kind in kinds],
        'timm_override_act_layers': ['quick_gelu' if k == 'clip' else None for k in kinds],
        'image_sizes': [SIZE] * len(kinds),
        'vision_num_heads': [tower(kind)['heads'] for kind in kinds],
        'text_config': model.config.text_config.to_diff_dict(), **config}
    del raw['auto_map']
    (folder / 'config.json').write_text(json.dumps(raw))
    save_file({k: v.to(dtype) for k, v in _with_unused(model, kinds).items()},
              folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder


def split(folder: Path) -> tuple[Path, Path]:
    """Spread the weights of a folder over two files and an index; return the files."""
    single = folder / 'model.safetensors'
    weights = load_file(single)
    single.unlink()
    names = sorted(weights)
    paths = tuple(folder / f'model-0000{number}-of-00002.safetensors' for number in (1, 2))
    weight_map = {}
    for place, path in enumerate(paths):
        part = {name: weights[name] for name in names[place::2]}
        save_file(part, path, metadata={'format': 'pt'})
        weight_map |= dict.fromkeys(part, path.name)
    (folder / 'model.safetensors.index.json').write_text(json.dumps(
        {'metadata': {}, 'weight_map': weight_map}))
    return paths


def change_weights(path: Path, **changes):
    """Change tensors of a safetensors file, '.' written as '__'; None removes one."""
    weights = {**load_file(path), **{k.replace('__', '.'): v for k, v in changes.items()}}
    path.unlink()  # The file may be shared with another folder.
    save_file({k: v for k, v in weights.items() if v is not None}, path,
              metadata={'format': 'pt'})


def change_json(path: Path, **changes):
    """Change entries of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def _save_files(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    for path in DATA.glob('*.json'):
        shutil.copyfile(path, folder / path.name)
    packed = (DATA / 'tokenizer.json.gz').read_bytes()
    (folder / 'tokenizer.json').write_bytes(gzip.decompress(packed))


def _with_unused(model, kinds):
    """Add the last block of every tower, its norm and its head."""
    weights = model.state_dict()
    for name in ('featurizer', 'fused_featurizer')[:len(kinds)]:
        prefix = f'vision_backbone.{name}.'
        for key, value in list(weights.items()):
            if key.startswith(f'{prefix}blocks.1.'):
                weights[key.replace('.blocks.1.', '.blocks.2.')] = torch.full_like(value, 9.0)
        weights[f'{prefix}norm.weight'] = torch.full((8,), 9.0)
        weights[f'{prefix}attn_pool.latent'] = torch.full((1, 1, 8), 9.0)
    return weights
