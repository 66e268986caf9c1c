"""The word tokenizer writes numbers as single tokens and loads as an ordinary one."""

from pathlib import Path

from transformers import AutoTokenizer

from vla_policy_node.training.vocabulary import build_tokenizer
from vla_policy_node.training.vocabulary import number_ids

TOKENIZER = build_tokenizer(['pick up the red block', 'Action:'])


def test_every_number_is_one_token_of_its_own() -> None:
    ids = number_ids(TOKENIZER)
    assert len(set(ids.values())) == 256
    assert TOKENIZER('7 255 0')['input_ids'] == [ids['7'], ids['255'], ids['0']]


def test_case_and_punctuation_do_not_matter() -> None:
    assert TOKENIZER('Pick up the RED block!') == TOKENIZER('pick up the red block')


def test_an_unknown_word_is_unknown_not_an_error() -> None:
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER('pick up the banana')['input_ids'])
    assert tokens == ['pick', 'up', 'the', '<unk>']


def test_the_image_placeholder_survives_repetition() -> None:
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER('red <image><image> Action:')['input_ids'])
    assert tokens == ['red', '<image>', '<image>', 'action']


def test_it_loads_from_a_folder_without_code(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded('pick up 12 <image> action') == TOKENIZER('pick up 12 <image> action')
    assert loaded.padding_side == 'left'
