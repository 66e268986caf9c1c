"""Weights that are damaged or do not belong together are named in one line, and none is loaded."""

import json
import logging
import os
import shutil

import numpy as np
from openvla_folders import change_json
from openvla_folders import change_weights
from openvla_folders import save_original
from openvla_folders import split
from policy_models import save_llava
from policy_models import vla_config
import pytest
from safetensors.torch import load_file
import torch

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.loading import load_model

EXACT = {'quantization': 'none', 'dtype': 'float32'}
UP = 'language_model.model.layers.1.mlp.up_proj.weight'
UP_KEYWORD = UP.replace('.', '__')


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    return save_original(tmp_path_factory.mktemp('original'), 'dinov2')


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy of an original OpenVLA folder for a test to change."""
    return shutil.copytree(original, tmp_path / 'copy')


@pytest.fixture
def shards(folder):
    """Return the two files that the weights of `folder` are spread over."""
    return split(folder)


def assert_refused(folder, message, **settings):
    with pytest.raises(PolicyError, match=message) as caught:
        load_model(folder, **{**EXACT, **settings})
    assert '\n' not in str(caught.value)


class TestOneFile:
    def test_a_file_cut_off_in_its_data_is_named_with_both_lengths(self, folder, shards):
        size = shards[1].stat().st_size
        os.truncate(shards[1], size - 100)
        assert_refused(folder, f'00002-of-00002.*expected {size} bytes, found {size - 100}')

    @pytest.mark.parametrize('kept', [0, 5, 200])
    def test_a_file_cut_off_in_its_header_is_named(self, folder, shards, kept):
        os.truncate(shards[0], kept)
        assert_refused(folder, f'00001-of-00002.*cut off in its header after {kept} bytes')

    def test_a_pointer_of_git_lfs_says_how_to_get_the_file(self, folder, shards):
        shards[0].write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
        assert_refused(folder, '00001-of-00002.*git lfs pull')

    def test_a_header_that_is_no_json_is_named(self, folder):
        (folder / 'model.safetensors').write_bytes((4).to_bytes(8, 'little') + b'{{{{')
        assert_refused(folder, 'model.safetensors is not a readable')


class TestShardsAndIndex:
    def test_a_tensor_that_its_shard_lacks_is_named(self, folder, shards):
        name = sorted(load_file(shards[0]))[0]
        change_weights(shards[0], **{name.replace('.', '__'): None})
        assert_refused(folder, f'expected {name} in {shards[0].name}, found it in no file')

    def test_a_tensor_in_the_other_shard_is_named(self, folder, shards):
        name = sorted(load_file(shards[0]))[0]
        index = json.loads((folder / 'model.safetensors.index.json').read_text())
        index['weight_map'][name] = shards[1].name
        (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
        assert_refused(
            folder, f'expected {name} in {shards[1].name}, found it in {shards[0].name}')

    def test_a_tensor_that_the_index_does_not_name_is_refused(self, folder, shards):
        change_weights(shards[1], stray=torch.zeros(2))
        assert_refused(folder, '1 tensors that the index does not name, the first is stray')

    def test_a_tensor_in_both_shards_is_refused(self, folder, shards):
        name = sorted(load_file(shards[0]))[0]
        change_weights(shards[1], **{name.replace('.', '__'): torch.zeros(2)})
        assert_refused(folder, f'holds {name} twice')

    def test_a_single_file_beside_shards_is_refused(self, folder, original, shards):
        shutil.copy(original / 'model.safetensors', folder)
        assert_refused(folder, 'both model.safetensors and shards')

    @pytest.mark.parametrize('weight_map', [[], {'a': '../other.safetensors'}, {'a': 1}, None])
    def test_an_index_that_is_none_is_refused(self, folder, shards, weight_map):
        change_json(folder / 'model.safetensors.index.json', weight_map=weight_map)
        assert_refused(folder, 'expected weight_map')


class TestWeightsAndConfig:
    def test_missing_weights_are_named(self, folder):
        change_weights(folder / 'model.safetensors', projector__fc2__weight=None)
        assert_refused(folder, 'lacks 1 weights.*projector.fc2.weight')

    # What is quantised transformers does not compare, and would compute with it.
    @pytest.mark.parametrize('quantization', ['none', 'nf4', 'int8'])
    @pytest.mark.parametrize('shape', [(64, 64), (256, 64), (64, 128)])
    def test_a_weight_of_another_shape_is_named_with_both(self, folder, quantization, shape):
        change_weights(folder / 'model.safetensors', **{UP_KEYWORD: torch.zeros(shape)})
        found = rf'\({shape[0]}, {shape[1]}\)'
        assert_refused(folder, rf'{UP.removesuffix(".weight")}.*shape \(128, 64\), found {found}',
                       quantization=quantization)

    def test_a_tower_of_uneven_blocks_is_refused(self, folder):
        name = 'vision_backbone.featurizer.blocks.1.mlp.fc1.weight'
        change_weights(
            folder / 'model.safetensors', **{name.replace('.', '__'): torch.zeros(9, 9)})
        assert_refused(folder, f'expected {name} of shape')

    def test_a_tower_that_lacks_a_block_is_refused(self, folder):
        names = [name for name in load_file(folder / 'model.safetensors') if '.blocks.1.' in name]
        change_weights(folder / 'model.safetensors',
                       **{name.replace('.', '__'): None for name in names})
        assert_refused(folder, 'lacks .* weights.*blocks.1.')

    @pytest.mark.parametrize('layers, message', [
        (1, r'expected 1 layers in language_model.model.layers.*found weights of layer 1'),
        (3, r'lacks 9 weights.*layers.2.')])
    def test_a_language_model_of_another_depth_is_refused(self, folder, layers, message):
        raw = json.loads((folder / 'config.json').read_text())
        change_json(folder / 'config.json',
                    text_config={**raw['text_config'], 'num_hidden_layers': layers})
        assert_refused(folder, message)

    def test_weights_that_are_not_used_are_told_of(self, folder, caplog):
        change_weights(folder / 'model.safetensors', value_head=torch.zeros(2))
        with caplog.at_level(logging.WARNING):
            load_model(folder, **EXACT)
        assert '1 weights are not part of the model' in caplog.text
        assert 'value_head' in caplog.text and 'LOAD REPORT' not in caplog.text

    def test_an_adapter_that_would_be_added_once_more_is_refused(self, folder):
        (folder / 'adapter_config.json').write_text('{}')
        assert_refused(folder, 'adapter_config.json, an adapter that would be added')

    def test_a_language_model_of_no_shape_that_fits_is_refused_before_its_weights_load(
            self, tmp_path, monkeypatch):
        monkeypatch.delattr('vla_policy_node.policy.loading.load_weights')
        with pytest.raises(PolicyError, match=(
                'found 0, with 14 of a shape .* such as .*q_proj of 48 x 48 .*multiples of 32')):
            load_policy(save_llava(tmp_path, width=48, mlp=80))


@pytest.mark.parametrize('statistics', [
    [], {'a': []}, {'a': {'action': []}}, {'a': {'action': {'q01': None, 'q99': None}}},
    {'a': {'action': {'q01': 0.0, 'q99': 1.0}}}, {'a': {'action': {'q01': [0.0], 'q99': [1.0]}}}])
def test_statistics_that_are_none_are_refused(folder, statistics):
    (folder / 'dataset_statistics.json').unlink()
    change_json(folder / 'config.json', norm_stats=statistics)
    with pytest.raises(PolicyError, match='expected norm_stats in config.json'):
        read_checkpoint(folder)


@pytest.mark.parametrize('number', [None, 'a', float('nan')])
def test_statistics_with_a_number_that_is_none_are_refused(folder, number):
    q01 = [-0.1] * 6 + [number]
    (folder / 'dataset_statistics.json').write_text(json.dumps(
        {'a': {'action': {'q01': q01, 'q99': [1.0] * 7}}}))
    with pytest.raises(PolicyError, match=r'norm_stats.a.action.q01.6'):
        read_checkpoint(folder)


@pytest.mark.parametrize('sizes', [[[3, 64, 64]], [[3, 56, 56]] * 2])
def test_pictures_of_a_size_or_number_that_the_towers_do_not_take_are_refused(folder, sizes):
    half = [[0.5] * 3] * len(sizes)
    (folder / 'preprocessor_config.json').write_text(json.dumps({
        'image_resize_strategy': 'resize-naive', 'input_sizes': sizes, 'means': half,
        'stds': half}))
    assert_refused(folder, rf'expected input_sizes of \[56\].*found \[{sizes[0][1]}')


def test_pictures_that_the_model_refuses_are_a_policy_error(tmp_path):
    folder = save_llava(tmp_path)
    change_json(folder / 'processor_config.json', image_processor={
        **json.loads((folder / 'processor_config.json').read_text())['image_processor'],
        'size': {'height': 64, 'width': 64}})
    change_json(folder / 'vla_config.json', weights_sha256={})
    policy = load_policy(folder, **EXACT)
    with pytest.raises(PolicyError, match='inference failed|the processor refuses'):
        policy.infer(Observation(
            images={'primary': np.zeros((48, 64, 3), np.uint8)}, instruction='pick'))


@pytest.mark.parametrize('image', [
    np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8),
    np.zeros((0, 8, 3), np.uint8), 'picture'])
def test_an_image_of_wrong_type_or_size_is_refused(image):
    with pytest.raises(PolicyError, match=r"image 'primary' to be an \(H, W, 3\) uint8"):
        Observation(images={'primary': image}, instruction='pick')


def test_quantising_the_vision_tower_of_an_unquantised_model_is_refused(folder):
    assert_refused(folder, 'quantize_vision: expected quantization nf4 or int8, found none',
                   quantize_vision=True)


def test_every_scheme_says_where_its_statistics_are_missing(tmp_path):
    folder = save_llava(tmp_path)
    content = vla_config()
    del content['norm_stats']
    (folder / 'vla_config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='norm_stats: Field required'):
        load_policy(folder, **EXACT)


def test_weights_overwritten_in_place_while_the_policy_runs_do_not_reach_it(tmp_path):
    folder = save_llava(tmp_path)
    (folder / 'vla_config.json').write_text(json.dumps(vla_config()))
    model = load_model(folder, **EXACT).model
    before = model.get_input_embeddings().weight.clone()
    weights = folder / 'model.safetensors'
    with weights.open('r+b') as stream:
        stream.write(bytes(weights.stat().st_size))
    assert torch.equal(model.get_input_embeddings().weight, before)
