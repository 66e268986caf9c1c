"""The configuration refuses what it does not know, and says which key in one line."""

import json
from pathlib import Path

from finetune_fakes import config_content
from finetune_fakes import make_config
import pytest

from vla_policy_node.training.finetune.config import FinetuneConfigError
from vla_policy_node.training.finetune.config import parse_config
from vla_policy_node.training.finetune.training import settled
from vla_policy_node.yaml_file import read_mapping

EXAMPLE = Path(__file__).parents[1] / 'config' / 'training' / 'finetune_example.yaml'


def error_of(**changes):
    with pytest.raises(FinetuneConfigError) as caught:
        parse_config(config_content(Path('base'), **changes), 'run.yaml')
    text = str(caught.value)
    assert '\n' not in text
    return text


def test_the_example_is_valid():
    config = parse_config(read_mapping(EXAMPLE, examples='config/training'), EXAMPLE)
    assert (config.base, config.stats_key) == ('models/tabletop', 'finetune_example')


def test_an_unknown_key_is_named_with_its_place():
    text = error_of(tuning={'method': 'lora', 'ranks': 8})
    assert text.startswith('run.yaml: tuning.ranks: Extra inputs are not permitted')


def test_a_wrong_value_is_shown():
    assert 'training.steps: Input should be greater than or equal to 1, found 0' in error_of(
        training={'steps': 0, 'lr': 1e-3})


@pytest.mark.parametrize(('changes', 'found'), [
    ({'prompt': 'gpt'}, 'prompt: must be one of openvla'),
    ({'training': {'steps': 5, 'lr': 0.1, 'warmup': 5}}, 'training: warmup must be less than'),
    ({'validation': {'share': 0, 'patience': 1}}, 'patience needs held-out records'),
    ({'sources': {'a': {'kind': 'magic'}}}, "sources.a: Input tag 'magic'"),
    ({'mixture': {}}, 'mixture: expected one of probabilities, repetition and temperature'),
])
def test_what_cannot_be_is_refused(changes, found):
    assert found in error_of(**changes)


def test_adapters_freeze_everything_else_unless_told_and_full_tuning_nothing():
    assert make_config(Path('b'), tuning={'method': 'qlora'}).tuning.frozen == {
        'vision', 'projector', 'embeddings'}
    assert make_config(Path('b'), tuning={'method': 'full'}).tuning.frozen == frozenset()
    assert make_config(Path('b'), tuning={'freeze': ['vision']}).tuning.frozen == {'vision'}


def test_the_configuration_is_written_down_alike_by_every_process():
    parts = ['vision', 'projector', 'embeddings']
    config = make_config(Path('b'), tuning={'freeze': parts})
    # A set would come out in another order when a run is resumed, and the state be refused.
    assert json.loads(settled(config))['tuning']['freeze'] == parts
