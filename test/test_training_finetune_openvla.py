"""An original OpenVLA directory is a base like any other."""

from finetune_fakes import LEVELS
from finetune_fakes import losses
from finetune_fakes import make_config
from finetune_fakes import make_parts
from finetune_fakes import run_training
import numpy as np
from openvla_folders import change_json
from openvla_folders import DATA
from openvla_folders import reference_weights
from openvla_folders import save_reference
import pytest
from safetensors.torch import load_file
import torch

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy.loading import load_model
from vla_policy_node.training.finetune import base as bases
from vla_policy_node.training.finetune.model_parts import count_parameters
from vla_policy_node.training.finetune.model_parts import linear_layers
from vla_policy_node.vla_config import VlaConfig

pytestmark = pytest.mark.slow

EXACT = {'quantization': 'none', 'dtype': 'float32'}
TRAINING = {'batch_size': 4, 'lr': 2e-2, 'precision': 'fp32', 'save_every': 100, 'workers': 0}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return save_reference(tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='module')
def parts(base):
    return make_parts(make_config(base))


@pytest.fixture(scope='module')
def tuned(base, tmp_path_factory):
    work = tmp_path_factory.mktemp('work')
    return work, run_training(make_config(base, training={**TRAINING, 'steps': 15}), work)


def test_action_prompt_and_cameras_are_derived(parts):
    language = parts.language
    assert language.token_config.vocab_size == 32000
    assert language.new_ids == ()
    assert language.prompt.lowercase and language.cameras[0].name == 'primary'
    assert language.max_length == 2048 - 16  # The picture's patches need positions too.


def test_vision_projector_embeddings_and_language_are_told_apart(parts):
    model = bases.load_model(parts.folder, parts.language, dtype=torch.float32, device='cpu')
    sizes = {part: total for part, (_, total) in count_parameters(model).items()}
    assert sizes['embeddings'] == sizes['head'] == 32064 * 32
    assert sizes['projector'] == 80 * 320 + 320 + 320 * 32 + 32 + 32 * 32 + 32
    assert all(sizes.values())
    assert {name.split('.')[0] for name in linear_layers(model, ['language'])} == {
        'language_model'}


def test_lora_lowers_the_loss_and_the_tuned_folder_acts_as_taught(tuned):
    work, out = tuned
    found = losses(work)
    assert np.mean([found[step] for step in (13, 14, 15)]) < 0.8 * found[1]
    policy = load_policy(out, **EXACT)
    assert policy.unnorm_key == 'tiny'
    dark, bright = (
        policy.infer(Observation(images={'primary': np.full((40, 48, 3), level, np.uint8)},
                                 instruction='pick up the red block')).actions[0]
        for level in LEVELS)
    assert dark[0] < -0.01 and bright[0] > 0.01


def test_the_tuned_folder_keeps_what_was_frozen_and_no_code(base, tuned):
    _, out = tuned
    weights, wanted = load_file(out / 'model.safetensors'), reference_weights()
    frozen = 'vision_backbone.featurizer.blocks.0.ls1.scale_factor'
    assert (weights[frozen] == wanted[frozen]).all()
    assert set(weights) < set(wanted)
    assert 'auto_map' not in (out / 'config.json').read_text()
    assert VlaConfig.load(out).weights_sha256
    # What was co-tuned with words may keep them: only original folders carry the warning.
    assert not load_model(out, **EXACT).robot_only


def test_a_tuned_folder_is_a_base_again(tuned):
    _, out = tuned
    again = make_parts(make_config(out)).language
    assert again.token_config.vocab_size == 32000 and again.new_ids == ()


def test_version_0_1_keeps_its_words(base, tmp_path):
    for path in base.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    (tmp_path / 'config.json').unlink()
    (tmp_path / 'config.json').write_text((DATA / 'config.json').read_text())
    change_json(tmp_path / 'config.json', llm_backbone_id='vicuna-v15-7b')
    assert make_parts(make_config(tmp_path)).language.prompt.action.endswith('ASSISTANT:')
