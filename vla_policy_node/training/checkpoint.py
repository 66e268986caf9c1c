"""
Writes the folder that load_policy takes, under its final name only when it is complete.

bf16 safetensors, tokenizer and processor files, vla_config.json, the configuration and where
the weights come from.
"""

from collections.abc import Mapping
import copy
import json
from pathlib import Path
import shutil
import tempfile
from typing import Any

import torch
from transformers import LlavaProcessor
from transformers import SiglipImageProcessorPil
import yaml

from vla_policy_node.action_space import NormStats
from vla_policy_node.training.config import TrainingConfig
from vla_policy_node.training.parts import Parts
from vla_policy_node.vla_config import ActionSpaceConfig
from vla_policy_node.vla_config import ActionStats
from vla_policy_node.vla_config import DatasetStats
from vla_policy_node.vla_config import hash_weights
from vla_policy_node.vla_config import VlaConfig

PERIOD_S = 0.2


def save_checkpoint(
    directory: Path, parts: Parts, stats: NormStats, config: TrainingConfig, *,
    transitions: int, trajectories: int, provenance: Mapping[str, Any],
) -> Path:
    """Write the checkpoint to `directory`, replacing an older one in one step."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix='.checkpoint-') as scratch:
        folder = Path(scratch) / 'new'
        folder.mkdir()
        _save_model(folder, parts, config)
        _vla_config(folder, parts, stats, config, transitions, trajectories).save(folder)
        (folder / 'training_config.yaml').write_text(
            yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False), encoding='utf-8')
        (folder / 'provenance.json').write_text(
            json.dumps(provenance, indent=2) + '\n', encoding='utf-8')
        if directory.exists():
            directory.rename(Path(scratch) / 'old')
        shutil.move(folder, directory)
    return directory


def _save_model(folder: Path, parts: Parts, config: TrainingConfig) -> None:
    copy.deepcopy(parts.model).to(torch.bfloat16).save_pretrained(folder)
    size = {'height': config.model.image_size, 'width': config.model.image_size}
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessorPil(
            size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer=parts.tokenizer, patch_size=config.model.patch_size,
        vision_feature_select_strategy='full', num_additional_image_tokens=0,
    )
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes 0600, which would hide the weights from others


def _vla_config(
    folder: Path, parts: Parts, stats: NormStats, config: TrainingConfig, transitions: int,
    trajectories: int,
) -> VlaConfig:
    return VlaConfig(
        action_space=ActionSpaceConfig(
            frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=PERIOD_S),
        tokenizer=parts.token_config,
        norm_stats={config.name: DatasetStats(
            action=ActionStats(**stats.to_dict()), num_transitions=transitions,
            num_trajectories=trajectories)},
        prompt=parts.prompt,
        cameras=(parts.camera,),
        decoding=config.action.decoding,
        weights_sha256=hash_weights(folder),
    )
