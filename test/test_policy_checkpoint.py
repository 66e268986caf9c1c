"""A bad checkpoint directory is named in one line, before anything is loaded."""

import json
from pathlib import Path

from policy_models import vla_config
import pytest

from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.checkpoint import checkpoint_name
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.checkpoint import resolve_checkpoint

# A safetensors file without tensors: the length of its header, and the header.
EMPTY_WEIGHTS = (2).to_bytes(8, 'little') + b'{}'


@pytest.fixture
def checkpoint(tmp_path):
    """Return a directory that passes every check."""
    (tmp_path / 'config.json').write_text('{"model_type": "llava"}')
    (tmp_path / 'vla_config.json').write_text(json.dumps(vla_config()))
    (tmp_path / 'model.safetensors').write_bytes(EMPTY_WEIGHTS)
    return tmp_path


def test_a_complete_directory_gives_its_vla_config(checkpoint):
    assert read_checkpoint(checkpoint).cameras[0].name == 'primary'


def test_a_missing_directory_is_told_from_a_hub_name(tmp_path):
    with pytest.raises(PolicyError, match='does not exist.*hf://owner/name'):
        read_checkpoint(tmp_path / 'nowhere')


@pytest.mark.parametrize('name', ['config.json', 'vla_config.json'])
def test_a_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(PolicyError, match=f'no {name}'):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize('content', ['{', '[]', '\udcff'])
def test_a_config_that_is_no_json_object_is_named(checkpoint, content):
    (checkpoint / 'config.json').write_bytes(content.encode(errors='surrogateescape'))
    with pytest.raises(PolicyError, match='config.json'):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize('suffix', ['bin', 'pt', 'pth', 'ckpt', 'pkl'])
def test_pickle_weights_beside_safetensors_are_refused(checkpoint, suffix):
    (checkpoint / f'weights.{suffix}').write_bytes(b'')
    with pytest.raises(PolicyError, match=f'weights.{suffix}.*convert the weights to safetensors'):
        read_checkpoint(checkpoint)


def test_pickle_weights_without_safetensors_are_refused_as_pickles(checkpoint):
    (checkpoint / 'model.safetensors').rename(checkpoint / 'pytorch_model.bin')
    with pytest.raises(PolicyError, match='pytorch_model.bin.*safetensors'):
        read_checkpoint(checkpoint)


def test_a_directory_without_weights_is_refused(checkpoint):
    (checkpoint / 'model.safetensors').unlink()
    with pytest.raises(PolicyError, match='no model.safetensors'):
        read_checkpoint(checkpoint)


def test_a_missing_shard_is_named(checkpoint):
    (checkpoint / 'model.safetensors').unlink()
    index = {'weight_map': {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'}}
    (checkpoint / 'model.safetensors.index.json').write_text(json.dumps(index))
    (checkpoint / 'model-1.safetensors').write_bytes(EMPTY_WEIGHTS)
    with pytest.raises(PolicyError, match='no model-2.safetensors'):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize('content', [b'', b'version https://git-lfs', b'\xff' * 64])
def test_a_corrupt_safetensors_file_is_named(checkpoint, content):
    (checkpoint / 'model.safetensors').write_bytes(content)
    with pytest.raises(PolicyError, match='model.safetensors is not a readable'):
        read_checkpoint(checkpoint)


def test_weights_of_another_sha256_are_refused(checkpoint):
    content = vla_config(weights_sha256={'model.safetensors': '0' * 64})
    (checkpoint / 'vla_config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='sha256'):
        read_checkpoint(checkpoint)


def test_statistics_of_the_wrong_dimension_are_refused(checkpoint):
    content = vla_config()
    content['norm_stats']['tabletop']['action']['q01'] = [0.0] * 6
    (checkpoint / 'vla_config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='q01'):
        read_checkpoint(checkpoint)


class TestHub:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        """Return a cache of the hub with one snapshot; there is no network."""
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
        repository = tmp_path / 'hub' / 'models--owner--name'
        snapshot = repository / 'snapshots' / ('1' * 40)
        snapshot.mkdir(parents=True)
        (repository / 'refs').mkdir()
        (repository / 'refs' / 'main').write_text('1' * 40)
        return snapshot

    @pytest.mark.parametrize('name', ['hf://owner/name', 'owner/name'])
    def test_what_was_downloaded_before_is_found_without_a_network(self, cache, name):
        assert resolve_checkpoint(name) == cache
        assert checkpoint_name(name) == 'owner/name'

    def test_a_directory_goes_before_a_name_of_the_hub(self, tmp_path, monkeypatch):
        (tmp_path / 'owner' / 'name').mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert resolve_checkpoint('owner/name') == Path('owner/name')
        assert checkpoint_name('owner/name') == 'name'

    def test_what_is_neither_here_nor_there_is_named_with_the_reason(self):
        with pytest.raises(PolicyError, match=(
                'owner/other is no directory here, and could not be downloaded.*cached')):
            resolve_checkpoint('owner/other')

    @pytest.mark.parametrize('name', ['/a/b', './owner/name', 'name', 'a/b/c', Path('/a/b')])
    def test_any_other_path_is_never_looked_up(self, name):
        assert resolve_checkpoint(name) == Path(name)

    @pytest.mark.parametrize('name', ['hf://tabletop', 'hf://a/b/c', 'hf://../etc'])
    def test_a_hub_name_is_owner_slash_name(self, name):
        with pytest.raises(PolicyError, match='hf://owner/name'):
            resolve_checkpoint(name)


def test_errors_are_one_line(tmp_path):
    with pytest.raises(PolicyError) as caught:
        read_checkpoint(tmp_path)
    assert '\n' not in str(caught.value)
