"""The training configuration refuses what it does not understand, in one line each."""

from pathlib import Path

import pytest
import yaml

from vla_policy_node.training.config import load_config
from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.config import ModelConfig

CONFIGURATIONS = Path(__file__).parent.parent / 'config' / 'training'


def _changed(tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load((CONFIGURATIONS / 'smoke.yaml').read_text())
    path = tmp_path / 'changed.yaml'
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


@pytest.mark.parametrize('name', ['smoke.yaml', 'tabletop.yaml'])
def test_shipped_configurations_are_valid(name: str) -> None:
    assert load_config(CONFIGURATIONS / name).name == name.removesuffix('.yaml')


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='learning_speed'):
        load_config(_changed(tmp_path, learning_speed=1.0))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='found No such file'):
        load_config(tmp_path / 'absent.yaml')


def test_text_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'broken.yaml'
    path.write_text('stages: [')
    with pytest.raises(ValueError, match='expected YAML, found'):
        load_config(path)


def _mixture(**changes: object) -> MixtureStage:
    values = {
        'kind': 'mixture', 'name': 'mix', 'steps': 1, 'images': 1, 'prompts_per_image': 1,
        'image_tokens': 4, 'shares': {'robot': 0.7, 'questions': 0.3}, 'vision_lr_scale': 1.0,
        'alignment_weight': 0.0,
        'lr': 1e-3, 'final_lr': 1e-4, 'warmup': 0,
    }
    return MixtureStage(**{**values, **changes})


def test_shares_must_add_up_to_one() -> None:
    with pytest.raises(ValueError, match='shares must add up to 1'):
        _mixture(shares={'robot': 0.7, 'questions': 0.7})


def test_a_negative_share_is_refused() -> None:
    with pytest.raises(ValueError, match='must not be negative'):
        _mixture(shares={'robot': 1.5, 'questions': -0.5})


def test_a_decay_cannot_end_before_its_stage() -> None:
    with pytest.raises(ValueError, match='decay_steps must be at least steps 10'):
        _mixture(steps=10, decay_steps=5)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="'robot' or 'questions'"):
        _mixture(shares={'captions': 1.0})


def test_a_width_the_4_bit_kernels_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match='multiple of 64'):
        ModelConfig(image_size=64, patch_size=32, width=100, vision_layers=1, vision_mlp=64,
                    vision_heads=1, text_layers=1, text_mlp=64, text_heads=1)


def test_patches_must_tile_the_image() -> None:
    with pytest.raises(ValueError, match='multiple of patch_size 32'):
        ModelConfig(image_size=100, patch_size=32, width=64, vision_layers=1, vision_mlp=64,
                    vision_heads=1, text_layers=1, text_mlp=64, text_heads=1)
