"""vla_config.json: strict reading, atomic writing, weights that are what they claim."""

import hashlib
import json
import stat

import numpy as np
import pytest

from vla_policy_node.prompts import TEMPLATES
from vla_policy_node.vla_config import CameraConfig
from vla_policy_node.vla_config import hash_weights
from vla_policy_node.vla_config import PromptConfig
from vla_policy_node.vla_config import TokenizerConfig
from vla_policy_node.vla_config import VlaConfig
from vla_policy_node.vla_config import VlaConfigError


def make_document():
    """Return a legal file as plain data."""
    return {
        'format_version': 1,
        'action_space': {'frame': 'base', 'rotation': 'rotation_vector',
                         'gripper': 'open_is_one', 'period_s': 0.2},
        'tokenizer': {'scheme': 'added', 'horizon': 1, 'terminate': False, 'plan_length': 2,
                      'first_id': 300},
        'norm_stats': {'tabletop': {
            'action': {'q01': [-0.04] * 6 + [0], 'q99': [0.04] * 6 + [1],
                       'mask': [True] * 6 + [False], 'mean': [0.0] * 7},
            'num_transitions': 10, 'num_trajectories': 2}},
        'prompt': {'kind': 'text', 'action': '{instruction} <image> Action:',
                   'question': '{question} <image> Answer:', 'lowercase': True},
        'cameras': [{'name': 'primary', 'size': [64, 96], 'resize': 'area', 'crop_area': 1.0}],
        'decoding': 'greedy',
        'weights_sha256': {},
    }


def write(directory, document):
    (directory / 'vla_config.json').write_text(json.dumps(document))
    return directory


def changed(*path, to):
    """Return the legal file with one entry replaced, or removed where `to` is Ellipsis."""
    document = make_document()
    place = document
    for key in path[:-1]:
        place = place[key]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


def test_a_saved_configuration_loads_as_it_was(tmp_path):
    config = VlaConfig.model_validate(make_document())
    config.save(tmp_path)
    assert VlaConfig.load(tmp_path) == config


def test_a_file_by_hand_is_read(tmp_path):
    config = VlaConfig.load(write(tmp_path, make_document()))
    assert config.action_space.period_s == 0.2
    assert config.cameras == (CameraConfig(size=(64, 96)),)
    assert config.tokenizer == TokenizerConfig(scheme='added', first_id=300, plan_length=2)


def test_a_plan_in_words_survives_the_file_and_no_plan_leaves_no_trace(tmp_path):
    document = changed('tokenizer', 'plan_text', to={'max_tokens': 9})
    document['tokenizer']['plan_words'] = [['red', 'blue'], [' block at']]
    VlaConfig.model_validate(document).save(tmp_path)
    tokenizer = VlaConfig.load(tmp_path).tokenizer
    assert (tokenizer.plan_text.max_tokens, tokenizer.plan_text.end) == (9, '\n')
    assert tokenizer.plan_words == (('red', 'blue'), (' block at',))
    VlaConfig.model_validate(make_document()).save(tmp_path)
    assert 'plan_text' not in json.loads((tmp_path / 'vla_config.json').read_text())['tokenizer']


def test_openvla_s_proprio_statistics_are_kept(tmp_path):
    document = changed('norm_stats', 'tabletop', 'proprio', to={'mean': [0.0] * 8})
    config = VlaConfig.load(write(tmp_path, document))
    assert config.norm_stats['tabletop'].proprio == {'mean': [0.0] * 8}


def test_the_action_space_is_built_for_a_data_set():
    config = VlaConfig.model_validate(make_document())
    key, space = config.build_action_space()
    assert (key, space.frame, space.period_s) == ('tabletop', 'base', 0.2)
    np.testing.assert_array_equal(space.stats.q99, [0.04] * 6 + [1])
    with pytest.raises(ValueError, match=r'expected one of \[tabletop\], found .bridge.'):
        config.build_action_space('bridge')


@pytest.mark.parametrize(('document', 'message'), [
    (changed('action_space', 'period', to=0.2), r'action_space\.period: Extra inputs'),
    (changed('action_space', 'period_s', to=0), r'action_space\.period_s: .*greater than 0, '
                                                r'found 0'),
    (changed('action_space', 'rotation', to='euler'), r"action_space\.rotation: .*found 'euler'"),
    (changed('tokenizer', 'horizon', to='3'), r"tokenizer\.horizon: .*integer, found '3'"),
    (changed('tokenizer', 'terminate', to=1), r'tokenizer\.terminate: .*boolean, found 1'),
    (changed('tokenizer', 'first_id', to=...), r"tokenizer: scheme 'added' takes exactly one of "
                                               r'\[first_id, token_ids\] but \[\] is given'),
    (changed('tokenizer', 'vocab_size', to=32000), r'but \[vocab_size, first_id\] is given'),
    (changed('tokenizer', 'plan_text', to={'max_tokens': 0}), r'max_tokens: .*found 0'),
    (changed('tokenizer', 'plan_text', to={'end': ''}), r'plan_text\.end: .*at least 1 char'),
    (changed('tokenizer', 'plan_words', to=[[]]), r'plan_words\.0: .*at least 1 item'),
    (changed('norm_stats', 'tabletop', 'action', 'q01', to=[0.0] * 6),
     r'norm_stats\.tabletop\.action\.q01: .*at least 7 items'),
    (changed('norm_stats', 'tabletop', 'action', 'q01', to=[9.0] * 7),
     r'norm_stats\.tabletop\.action: norm stats: expected q01 <= q99 in dimension x'),
    (changed('norm_stats', 'tabletop', 'action', 'q99', to=[float('nan')] * 7),
     r'q99\.0: .*finite number, found nan'),
    (changed('norm_stats', to={}), r'norm_stats: .*at least 1 item'),
    (changed('prompt', 'action', to='Action:'), 'action must hold {instruction} exactly once'),
    (changed('cameras', to=[]), 'cameras: .*at least 1 item'),
    (changed('cameras', 0, 'size', to=[64]), r'cameras\.0\.size\.1: Field required'),
    (changed('cameras', 0, 'crop_area', to=1.5), r'crop_area: .*less than or equal to 1'),
    (changed('cameras', to=[{'name': 'a'}, {'name': 'a'}]), 'camera names must differ'),
    (changed('decoding', to=...), None),
    (changed('prompt', to=...), 'prompt: Field required'),
    (changed('format_version', to=2), 'format_version: .*found 2'),
    (changed('weights_sha256', to={'pytorch_model.bin': '0' * 64}), 'plain name of a .safetensor'),
    (changed('weights_sha256', to={'../a.safetensors': '0' * 64}), 'plain name of a .safetensor'),
    (changed('weights_sha256', to={'a.safetensors': 'xyz'}), r'weights_sha256\.a\.safetensors: '),
])
def test_a_faulty_field_is_named_in_one_line(tmp_path, document, message):
    write(tmp_path, document)
    if message is None:
        assert VlaConfig.load(tmp_path).decoding == 'greedy'
        return
    with pytest.raises(VlaConfigError, match=message) as caught:
        VlaConfig.load(tmp_path)
    text = str(caught.value)
    assert text.startswith(f'{tmp_path}/vla_config.json: ')
    assert '\n' not in text


def test_a_long_faulty_value_is_cut(tmp_path):
    write(tmp_path, changed('decoding', to='x' * 10_000))
    with pytest.raises(VlaConfigError) as caught:
        VlaConfig.load(tmp_path)
    assert len(str(caught.value)) < 400


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VlaConfigError, match='vla_config.json: .*No such file'):
        VlaConfig.load(tmp_path / 'nowhere')


def test_a_truncated_file_is_refused(tmp_path):
    (tmp_path / 'vla_config.json').write_text(json.dumps(make_document())[:100])
    with pytest.raises(VlaConfigError, match='vla_config.json: the file: Invalid JSON'):
        VlaConfig.load(tmp_path)


def test_saving_leaves_one_file_that_others_can_read(tmp_path):
    config = VlaConfig.model_validate(make_document())
    config.save(tmp_path)
    path = config.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['vla_config.json']
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    config = VlaConfig.model_validate(make_document())
    path = config.save(tmp_path)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError('disk full')

    monkeypatch.setattr('vla_policy_node.vla_config.os.replace', refuse)
    with pytest.raises(OSError, match='disk full'):
        config.model_copy(update={'decoding': 'expectation'}).save(tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['vla_config.json']


def with_weights(directory, content):
    (directory / 'model.safetensors').write_bytes(content)
    document = changed('weights_sha256', to=hash_weights(directory))
    return VlaConfig.model_validate(document)


def test_untouched_weights_are_accepted(tmp_path):
    config = with_weights(tmp_path, b'weights')
    assert config.weights_sha256 == {
        'model.safetensors': hashlib.sha256(b'weights').hexdigest()}
    config.verify_weights(tmp_path)


def test_changed_weights_are_refused_by_name(tmp_path):
    config = with_weights(tmp_path, b'weights')
    (tmp_path / 'model.safetensors').write_bytes(b'weighty')
    with pytest.raises(VlaConfigError, match=r'model\.safetensors: expected sha256 [0-9a-f]{64}'):
        config.verify_weights(tmp_path)


def test_missing_weights_are_refused_by_name(tmp_path):
    config = with_weights(tmp_path, b'weights')
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(VlaConfigError, match=r'model\.safetensors: expected the weights'):
        config.verify_weights(tmp_path)


@pytest.mark.parametrize('name', sorted(TEMPLATES))
def test_every_template_makes_a_prompt_section(name):
    assert PromptConfig.named(name).action == TEMPLATES[name].action


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(ValueError, match=r'expected one of \[openvla, .*found .octo.'):
        PromptConfig.named('octo')


@pytest.mark.parametrize('fields', [
    {'scheme': 'overwritten'},
    {'scheme': 'text', 'separator': ' ', 'vocab_size': 32000},
    {'scheme': 'text'},
    {'scheme': 'added', 'token_ids': tuple(range(255))},
    {'scheme': 'levels', 'token_ids': (1,) * 256},
    {'scheme': 'fast', 'first_id': 3},
])
def test_a_scheme_without_its_own_fields_is_refused(fields):
    with pytest.raises(ValueError):
        TokenizerConfig(**fields)
