"""An original OpenVLA directory is a policy as it is; what it lacks or has wrong is named."""

import json
import logging
import os
import shutil

import numpy as np
from openvla_folders import change_json
from openvla_folders import save_original
from openvla_folders import save_reference
from openvla_folders import SIZE
from openvla_folders import small_model
from openvla_folders import split
import pytest
import torch

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.loading import load_model
from vla_policy_node.policy.openvla.pictures import OpenVLAImageProcessor
from vla_policy_node.policy.openvla.processor import OpenVLAProcessor

pytestmark = pytest.mark.slow

STATS = {'q01': [-0.1] * 6 + [0.0], 'q99': [0.1] * 6 + [1.0]}
EXACT = {'quantization': 'none', 'dtype': 'float32'}


@pytest.fixture(scope='module')
def fused(tmp_path_factory):
    return save_original(tmp_path_factory.mktemp('fused'), 'dinov2', 'siglip')


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    return save_reference(tmp_path_factory.mktemp('reference'))


@pytest.fixture
def folder(reference, tmp_path):
    """Return a copy of the reference for a test to change; its weights are the same file."""
    return shutil.copytree(reference, tmp_path / 'copy', copy_function=link_weights)


def link_weights(source, target):
    copy = os.link if source.endswith('.safetensors') else shutil.copyfile
    copy(source, target)


def observation(seed=0, instruction='pick up the red block'):
    rgb = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return Observation(images={'primary': rgb}, instruction=instruction)


class TestDerivedConfiguration:
    def test_tokens_prompt_and_camera_are_openvlas(self, folder):
        config = read_checkpoint(folder)
        assert (config.tokenizer.scheme, config.tokenizer.vocab_size) == ('overwritten', 32000)
        assert config.prompt.action.startswith('In: What action') and config.prompt.lowercase
        assert config.cameras[0].name == 'primary' and config.cameras[0].size is None
        assert config.action_space.gripper == 'open_is_one'

    def test_version_0_1_is_asked_in_vicunas_words(self, folder):
        change_json(folder / 'config.json', llm_backbone_id='vicuna-v15-7b')
        assert read_checkpoint(folder).prompt.action.endswith('ASSISTANT:')

    def test_statistics_beside_config_json_replace_its_own(self, folder):
        (folder / 'dataset_statistics.json').write_text(json.dumps({'mine': {'action': STATS}}))
        config = read_checkpoint(folder)
        assert list(config.norm_stats) == ['mine']
        assert config.norm_stats['mine'].action.mask == (True,) * 7

    def test_without_that_file_config_json_says_it(self, folder):
        (folder / 'dataset_statistics.json').unlink()
        assert list(read_checkpoint(folder).norm_stats) == ['tiny_dataset']

    def test_data_sets_of_other_arms_are_left_out(self, folder):
        two_arms = {name: values * 2 for name, values in STATS.items()}
        (folder / 'dataset_statistics.json').write_text(json.dumps(
            {'one': {'action': STATS}, 'two': {'action': two_arms}}))
        assert list(read_checkpoint(folder).norm_stats) == ['one']

    def test_no_statistics_at_all_are_refused(self, folder):
        (folder / 'dataset_statistics.json').unlink()
        change_json(folder / 'config.json', norm_stats=None)
        with pytest.raises(PolicyError, match='expected norm_stats in config.json'):
            read_checkpoint(folder)

    def test_swapped_quantiles_are_refused_in_one_line(self, folder):
        swapped = {'q01': STATS['q99'], 'q99': STATS['q01']}
        (folder / 'dataset_statistics.json').write_text(json.dumps({'a': {'action': swapped}}))
        with pytest.raises(PolicyError, match='norm_stats.a.action: .*q01 <= q99'):
            read_checkpoint(folder)

    def test_bridges_rotations_are_roll_pitch_and_yaw(self, folder):
        (folder / 'dataset_statistics.json').write_text(
            json.dumps({'bridge_orig': {'action': STATS}}))
        assert read_checkpoint(folder).action_space.rotation == 'fixed_axis_rpy'

    def test_a_part_of_vla_config_json_is_completed(self, folder):
        (folder / 'vla_config.json').write_text(json.dumps({
            'cameras': [{'name': 'wrist', 'crop_area': 0.9}],
            'action_space': {'period_s': 0.05}}))
        config = read_checkpoint(folder)
        assert config.cameras[0].crop_area == 0.9
        assert config.action_space.period_s == 0.05
        assert config.action_space.gripper == 'open_is_one'
        assert config.tokenizer.vocab_size == 32000

    def test_a_wrong_part_is_named(self, folder):
        (folder / 'vla_config.json').write_text('{"camera": []}')
        with pytest.raises(PolicyError, match='^camera: .*correct vla_config.json'):
            read_checkpoint(folder)


class TestUnnormKey:
    @pytest.fixture
    def two(self, folder):
        (folder / 'dataset_statistics.json').write_text(json.dumps(
            {'bridge_orig': {'action': STATS}, 'mine': {'action': STATS}}))
        return folder

    def test_one_of_several_must_be_chosen(self, two):
        with pytest.raises(ValueError, match=r'expected one of \[bridge_orig, mine\], found none'):
            load_model(two, **EXACT)

    def test_an_unknown_one_is_refused_with_the_known(self, two):
        with pytest.raises(ValueError, match=r"\[bridge_orig, mine\], found 'berkeley'"):
            load_model(two, **EXACT, unnorm_key='berkeley')

    def test_a_known_one_is_used(self, two):
        assert load_model(two, **EXACT, unnorm_key='mine').unnorm_key == 'mine'


@pytest.mark.parametrize('kinds', [
    ('siglip',), ('clip',), ('dinov2',), ('dinov2', 'clip'), ('dinov2', 'siglip')], ids='+'.join)
def test_all_weights_that_are_used_come_from_the_file(tmp_path, kinds):
    loaded = load_model(save_original(tmp_path, *kinds), **EXACT)
    wanted = small_model(*kinds).state_dict()
    assert loaded.model.state_dict().keys() == wanted.keys()
    for name, value in loaded.model.state_dict().items():
        torch.testing.assert_close(value, wanted[name])
    side = loaded.processor(text='a', images=[np.zeros((9, 9, 3), np.uint8)])['pixel_values']
    assert side.shape == (1, 3 * len(kinds), SIZE, SIZE)


def test_the_picture_decides_about_the_action(fused):
    policy = load_policy(fused, **EXACT)
    actions = {tuple(policy.infer(observation(seed)).token_ids[0]) for seed in range(4)}
    assert len(actions) > 1


@pytest.mark.parametrize('quantization', ['nf4', 'int8'])
def test_only_the_language_model_is_quantised(fused, quantization):
    loaded = load_model(fused, quantization=quantization)
    assert loaded.quantized_layers == 2 * 7
    assert loaded.model.vision_backbone.featurizer.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert loaded.model.projector.fc1.weight.dtype == torch.bfloat16
    assert loaded.model.get_output_embeddings().weight.dtype == torch.bfloat16
    policy = load_policy(fused, quantization=quantization)
    assert policy.infer(observation()).token_ids.shape == (1, 7)


def test_an_answer_comes_with_a_warning_that_the_words_are_lost(fused, caplog):
    policy = load_policy(fused, **EXACT)
    with caplog.at_level(logging.WARNING):
        policy.answer(observation(instruction='what is it?'), 2)
    assert 'tuned on robot data alone' in caplog.text


def test_a_folder_without_preprocessor_config_follows_config_json(fused):
    assert not (fused / 'preprocessor_config.json').exists()
    processor = OpenVLAProcessor.from_folder(fused)
    assert processor.image_processor.settings['image_resize_strategy'] == 'resize-naive'


def test_the_space_follows_the_prompt_once(fused):
    processor = OpenVLAProcessor.from_folder(fused)
    picture = np.zeros((9, 9, 3), np.uint8)
    for text in ('In: pick up\nOut:', 'In: pick up\nOut: '):
        ids = processor(text=text, images=[picture])['input_ids'][0].tolist()
        assert ids[0] == 1 and ids[-1] == 29871 and ids[-2] != 29871


@pytest.mark.parametrize('text, count, message', [
    ('a', 2, 'one picture at a time, found 2'), ('a', 0, 'found 0'),
    ('<image>a', 1, 'no <image>')])
def test_pictures_and_places_for_them_are_counted(fused, text, count, message):
    processor = OpenVLAProcessor.from_folder(fused)
    with pytest.raises(ValueError, match=message):
        processor(text=text, images=[np.zeros((9, 9, 3), np.uint8)] * count)


@pytest.mark.parametrize('change, message', [
    ({'vision_num_heads': None}, 'number of attention heads.*vision_num_heads'),
    ({'vision_num_heads': [5, 3]}, 'to divide 32, found 5'),
    ({'image_sizes': [224, 224]}, 'expected 256 positions.*found 16'),
    ({'vision_backbone_id': 'eyes', 'timm_model_ids': None}, 'dinosiglip-vit-so-224px.*eyes'),
    ({'text_config': {'model_type': 'phi'}}, "to be a llama, found 'phi'"),
    ({'n_action_bins': 128}, 'n_action_bins 256, found 128'),
    ({'vision_num_heads': [2]}, 'vision_num_heads to list 2 entries'),
])
def test_a_config_that_does_not_fit_is_named(folder, change, message):
    if 'vision_num_heads' in change and change['vision_num_heads'] is None:
        change = {**change, 'timm_model_ids': ['vit_unheard_of', 'vit_unheard_of']}
    change_json(folder / 'config.json', **change)
    with pytest.raises(PolicyError, match=message):
        load_model(folder, **EXACT)


@pytest.mark.parametrize('stored', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_weights_stored_in_half_precision_are_used_as_they_are(tmp_path, stored, dtype):
    loaded = load_model(save_original(tmp_path, 'siglip', dtype=stored),
                        quantization='none', dtype=dtype)
    wanted = small_model('siglip').state_dict()
    for name, value in loaded.model.state_dict().items():
        assert value.dtype == getattr(torch, dtype)
        value = value.to_dense() if value.is_mkldnn else value
        torch.testing.assert_close(
            value, wanted[name].to(stored).to(value.dtype), rtol=0, atol=0)


@pytest.mark.parametrize('kinds', [('siglip',), ('dinov2', 'siglip')], ids='+'.join)
@pytest.mark.parametrize('strategy', ['resize-naive', 'letterbox', 'resize-crop'])
def test_config_json_alone_says_how_pictures_are_resized(tmp_path, kinds, strategy):
    folder = save_original(tmp_path, *kinds, image_resize_strategy=strategy)
    rgb = observation().images['primary']
    towers = [{'dinov2': ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}.get(
        kind, ([0.5] * 3, [0.5] * 3)) for kind in kinds]
    wanted = OpenVLAImageProcessor({
        'image_resize_strategy': strategy, 'input_sizes': [[3, SIZE, SIZE]] * len(kinds),
        'means': [mean for mean, _ in towers], 'stds': [std for _, std in towers]})([rgb])
    found = OpenVLAProcessor.from_folder(folder)(text='a', images=[rgb])
    torch.testing.assert_close(found['pixel_values'], wanted['pixel_values'], rtol=0, atol=0)


def test_without_a_strategy_pictures_get_borders(tmp_path):
    folder = save_original(tmp_path, 'siglip')
    change_json(folder / 'config.json', image_resize_strategy=None)
    settings = OpenVLAProcessor.from_folder(folder).image_processor.settings
    assert settings['image_resize_strategy'] == 'letterbox'


def test_a_fine_tune_with_its_adapter_merged_is_a_policy(tmp_path):
    """No auto_map, no norm_stats in config.json, shards in bfloat16, its own statistics."""
    folder = save_original(tmp_path, 'dinov2', 'siglip', dtype=torch.bfloat16)
    split(folder)
    change_json(folder / 'config.json', norm_stats=None, vision_backbone_id=None)
    (folder / 'dataset_statistics.json').write_text(json.dumps(
        {'libero_spatial_no_noops': {
            'action': STATS, 'num_transitions': 9, 'num_trajectories': 1}}))
    policy = load_policy(folder, quantization='none')
    assert policy.unnorm_key == 'libero_spatial_no_noops'
    actions = policy.infer(observation()).actions
    assert np.isfinite(actions).all() and (abs(actions[:, :3]) <= 0.1).all()


def test_the_crop_of_augmented_fine_tunes_cuts_the_centre_out(fused, tmp_path):
    folder = shutil.copytree(fused, tmp_path / 'copy', copy_function=link_weights)
    whole = load_policy(folder, **EXACT)
    (folder / 'vla_config.json').write_text(json.dumps(
        {'cameras': [{'name': 'primary', 'crop_area': 0.9}]}))
    cropping = load_policy(folder, **EXACT)
    rgb = observation().images['primary']  # 60 x 80, of which 57 x 76 are kept
    centre = Observation(images={'primary': np.ascontiguousarray(rgb[1:58, 2:78])},
                         instruction='pick up the red block')
    np.testing.assert_array_equal(
        cropping.action_logits(observation()), whole.action_logits(centre))
    assert not np.array_equal(
        cropping.action_logits(observation()), whole.action_logits(observation()))


def test_a_name_of_the_hub_is_a_policy_of_that_name(fused, tmp_path, monkeypatch):
    snapshot = tmp_path / 'models--openvla--openvla-7b' / 'snapshots' / ('0' * 40)
    shutil.copytree(fused, snapshot)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('0' * 40)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    policy = load_policy('openvla/openvla-7b', **EXACT)
    assert policy.checkpoint_name == 'openvla/openvla-7b'
    assert 'openvla/openvla-7b was tuned on robot data alone' in policy.answer_caution
    assert policy.infer(observation()).token_ids.shape == (1, 7)
