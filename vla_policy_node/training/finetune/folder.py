"""
Writes the policy folder: what load_policy takes, under its final name only when it is complete.

The weights are put together from the base and what was trained, on the CPU: that is the same for
full tuning, LoRA and QLoRA (whose adapters go into the base's own weights, not the 4-bit ones),
and needs nothing of how the run was spread over processes.
"""

from collections.abc import Mapping
from importlib.metadata import version
import json
from pathlib import Path
import platform
import shutil
import sys
import tempfile
from typing import Any

import torch
from torch import nn
import yaml

from vla_policy_node.training.finetune.base import load_model
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.tuning import make_trainable
from vla_policy_node.training.finetune.tuning import merged
from vla_policy_node.training.finetune.tuning import set_trained_weights
from vla_policy_node.vla_config import ActionStats
from vla_policy_node.vla_config import DatasetStats
from vla_policy_node.vla_config import hash_weights
from vla_policy_node.vla_config import VlaConfig

_PACKAGES = ('torch', 'transformers', 'tokenizers', 'peft', 'accelerate', 'bitsandbytes', 'numpy')


def save_policy(
    out: Path, config: FinetuneConfig, parts: Parts, weights: Mapping[str, torch.Tensor],
    provenance: Mapping[str, Any],
) -> Path:
    """Write the folder to `out`, replacing an older one in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.policy-') as scratch:
        folder = Path(scratch) / 'new'
        folder.mkdir()
        tuned_model(config, parts, weights).save_pretrained(folder)
        parts.language.processor.save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors writes 0600, which would hide weights from others
        _vla_config(folder, config, parts).save(folder)
        (folder / 'training_config.yaml').write_text(
            yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False), encoding='utf-8')
        (folder / 'provenance.json').write_text(
            json.dumps(provenance, indent=2) + '\n', encoding='utf-8')
        if out.exists():
            out.rename(Path(scratch) / 'old')
        shutil.move(folder, out)
    return out


def tuned_model(
    config: FinetuneConfig, parts: Parts, weights: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Return the base with what was trained, adapters merged, on the CPU."""
    dtype = torch.bfloat16 if config.training.precision == 'bf16' else torch.float32
    model = load_model(parts.folder, parts.language, dtype=dtype, device='cpu')
    method = 'full' if config.tuning.method == 'full' else 'lora'
    trainable = make_trainable(
        model, config.tuning.model_copy(update={'method': method}), parts.language.new_ids)
    set_trained_weights(trainable, {
        name.removeprefix('model.'): value for name, value in weights.items()})
    return merged(trainable).to(dtype)


def provenance_of(config: FinetuneConfig, parts: Parts, minutes: float) -> dict[str, Any]:
    """Return where weights come from: command, base, data, versions."""
    return {
        'command': ' '.join(['cofinetune', *sys.argv[1:]]),
        'base': config.base,
        'base_sha256': hash_weights(parts.folder),
        'seed': config.seed,
        'sources_sha256': parts.fingerprints(),
        'versions': {'python': platform.python_version(),
                     **{name: version(name) for name in _PACKAGES}},
        'minutes': round(minutes, 2),
    }


def _vla_config(folder: Path, config: FinetuneConfig, parts: Parts) -> VlaConfig:
    language = parts.language
    return VlaConfig(
        action_space=language.action_space,
        tokenizer=language.token_config,
        norm_stats={config.stats_key: DatasetStats(
            action=ActionStats(**parts.stats.to_dict()), num_transitions=parts.transitions,
            num_trajectories=parts.trajectories)},
        prompt=language.prompt,
        cameras=language.cameras,
        decoding=language.decoding,
        weights_sha256=hash_weights(folder),
    )
