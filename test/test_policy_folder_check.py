"""What a checkpoint folder and its config.json may hold is settled before any of it is used."""

import json
import os

from policy_models import vla_config
import pytest

from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.config_check import check_model_config
from vla_policy_node.policy.folder_check import check_folder


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a file, beside another one."""
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'config.json').write_text('{}')
    (tmp_path / 'checkpoint').mkdir()
    (tmp_path / 'checkpoint' / 'config.json').write_text('{}')
    return tmp_path / 'checkpoint'


def refused(folder, message):
    with pytest.raises(PolicyError, match=message) as caught:
        check_folder(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['a.bin', 'a.BIN', 'a.Pt', 'a.pickle', 'a.joblib', 'a.ckpt'])
def test_a_pickle_is_refused_however_its_name_is_written(folder, name):
    (folder / name).write_bytes(b'')
    refused(folder, f'{name}.*can run code')


@pytest.mark.parametrize(('name', 'target'), [
    ('config.json', '../outside/config.json'), ('custom', '../outside'),
    ('a.json', '/etc/passwd')])
def test_a_link_out_of_the_folder_is_refused(folder, name, target):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    refused(folder, f'{name} is a link out of the folder')


@pytest.mark.parametrize('target', ['nowhere', 'loop.json'])
def test_a_link_to_nothing_is_refused(folder, target):
    (folder / 'loop.json').symlink_to(target)
    refused(folder, 'loop.json is a link that leads nowhere')


def test_a_link_within_the_folder_is_none_of_that(folder):
    (folder / 'a.json').symlink_to('config.json')
    check_folder(folder)


def test_a_folder_that_is_itself_a_link_is_taken_for_what_it_stands_for(folder, tmp_path):
    (tmp_path / 'newest').symlink_to(folder)
    (folder / 'a.json').symlink_to('config.json')
    check_folder(tmp_path / 'newest')


def test_links_of_the_hubs_cache_lead_to_its_blobs_and_nowhere_else(tmp_path):
    snapshot = tmp_path / 'models--owner--name' / 'snapshots' / '1234'
    snapshot.mkdir(parents=True)
    (tmp_path / 'models--owner--name' / 'blobs').mkdir()
    for place in (tmp_path / 'models--owner--name' / 'blobs', tmp_path):
        (place / 'abcd').write_text('{}')
    (snapshot / 'config.json').symlink_to('../../blobs/abcd')
    check_folder(snapshot)
    (snapshot / 'tokenizer.json').symlink_to('../../../abcd')
    refused(snapshot, 'tokenizer.json is a link out of the folder')


def test_a_pipe_is_refused_because_reading_it_would_never_end(folder):
    os.mkfifo(folder / 'tokenizer.json')
    refused(folder, 'tokenizer.json to be a file or a folder, found a pipe')


def test_text_larger_than_any_tokenizer_is_refused_without_being_read(folder):
    os.truncate(folder / 'config.json', 1 << 40)
    refused(folder, f'config.json to have at most 134217728 bytes, found {1 << 40}')


def test_weights_may_be_large(folder):
    (folder / 'model.safetensors').write_bytes(b'')
    os.truncate(folder / 'model.safetensors', 1 << 40)
    check_folder(folder)


@pytest.mark.parametrize('raw', [
    {'text_config': {'num_hidden_layers': 10 ** 7}}, {'depth': 13},
    {'a': [{'vision_config': {'num_layers': 13}}]}])
def test_more_layers_than_tensors_are_refused_before_they_are_built(raw):
    with pytest.raises(PolicyError, match='of at most 12, as many as there are tensors'):
        check_model_config(raw, 12)


@pytest.mark.parametrize('key', ['attn_implementation', '_attn_implementation',
                                 'experts_implementation'])
def test_kernels_of_a_repository_are_refused_because_they_are_code(key):
    with pytest.raises(PolicyError, match=f"{key} names code of a repository, 'owner/name'"):
        check_model_config({'text_config': {key: 'owner/name'}}, 1)
    check_model_config({'text_config': {key: 'sdpa'}}, 1)


def test_a_header_longer_than_safetensors_reads_is_named_and_not_read(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "llava"}')
    (tmp_path / 'vla_config.json').write_text(json.dumps(vla_config()))
    (tmp_path / 'model.safetensors').write_bytes((1 << 39).to_bytes(8, 'little'))
    os.truncate(tmp_path / 'model.safetensors', 1 << 40)
    with pytest.raises(PolicyError, match=f'a header of {1 << 39} bytes'):
        read_checkpoint(tmp_path)
