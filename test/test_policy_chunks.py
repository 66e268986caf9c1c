"""From decoded tokens to physical actions, without a model."""

from types import SimpleNamespace

import numpy as np
import pytest

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.action_tokenizer import Decoded
from vla_policy_node.action_tokenizer import TextNumberTokens
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.chunks import clean_plan
from vla_policy_node.policy.chunks import MAX_PLAN_CHARACTERS
from vla_policy_node.policy.chunks import PlanDescription
from vla_policy_node.vla_config import TokenizerConfig

SPACE = ActionSpace(
    frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.2,
    stats=NormStats(q01=[-0.04] * 6 + [0.0], q99=[0.04] * 6 + [1.0], mask=[True] * 6 + [False]),
)


def sequence(token_ids, probabilities=None, values=None):
    """Return what the decoder would have produced."""
    n = len(token_ids)
    return SimpleNamespace(
        token_ids=np.array(token_ids),
        probabilities=np.full(n, 0.5, np.float32) if probabilities is None else probabilities,
        values=np.full(n, np.nan) if values is None else values,
    )


def test_bins_become_metres_and_radians():
    tokenizer = AddedTokens(first_id=1000)
    chunk = build_chunk(sequence([1000, 1255, 1127, 1128, 1064, 1192, 1255]), tokenizer, SPACE, {})
    expected = 0.04 * np.array([[-255, 255, -1, 1, -127, 129]]) / 256
    np.testing.assert_allclose(chunk.actions[:, :6], expected, atol=1e-12)
    assert chunk.actions[0, 6] == 255 / 256


def test_the_expected_value_is_executed_instead_of_the_bin():
    values = np.array([0.25, -0.25, 0.0, 0.0, 0.0, 0.0, 0.75])
    chunk = build_chunk(
        sequence([1128] * 7, values=values), AddedTokens(first_id=1000), SPACE, {})
    np.testing.assert_allclose(chunk.actions[0, [0, 1, 6]], [0.01, -0.01, 0.75])


def test_the_plan_and_the_flag_are_not_part_of_the_action():
    tokenizer = AddedTokens(first_id=0, plan_length=2, terminate=True)
    tokens = [0, 255, 1, 128, 128, 128, 128, 128, 128, 200]
    chunk = build_chunk(sequence(tokens), tokenizer, SPACE, {}, lambda decoded: 'my plan')
    assert chunk.plan == 'my plan'
    assert chunk.terminate is True
    assert chunk.token_ids.tolist() == [[128, 128, 128, 128, 128, 128, 200]]
    assert chunk.all_token_ids.tolist() == tokens


def test_the_confidence_of_a_number_is_the_product_over_its_tokens():
    words = [[*map(int, f'{number:03d}')] for number in range(256)]
    tokenizer = TextNumberTokens(number_token_ids=words, separator_ids=[10])
    tokens = [1, 2, 8, 10] * 6 + [2, 5, 5]
    probabilities = np.array([0.5, 0.5, 0.5, 0.1] * 6 + [1.0, 1.0, 0.9], np.float32)
    chunk = build_chunk(sequence(tokens, probabilities), tokenizer, SPACE, {})
    np.testing.assert_allclose(chunk.confidence, [[0.125] * 6 + [0.9]], rtol=1e-6)
    assert chunk.token_ids.tolist() == tokens


def test_tokens_that_are_no_action_raise_and_never_become_a_motion():
    with pytest.raises(DecodeError, match='no action'):
        build_chunk(sequence([3] * 7), AddedTokens(first_id=1000), SPACE, {})


def describe(decoded_plan, config=None, text=''):
    """Return the plan in words; decoded_plan: the fields of the decoded plan."""
    config = TokenizerConfig(scheme='added', first_id=300, **(config or {}))
    decoded = Decoded(actions=None, bins=None, spans=None, terminate=False, **decoded_plan)
    return PlanDescription(config, lambda ids: text)(decoded)


def test_a_pointing_plan_is_told_in_shares_of_the_image():
    assert describe({'plan': (-0.06, 0.62)}) == 'at 0.47 0.81'
    assert describe({}) == ''


def test_a_plan_of_words_and_numbers_is_a_sentence():
    words = {'plan_words': (('red', ' blue'), (' block at',))}
    assert describe({'plan_words': (1, 0), 'plan': (-0.06, 0.62)}, words) == (
        'blue block at 0.47 0.81')
    assert describe({'plan_words': (0, 0)}, {'plan_words': (('pick',), ('up',))}) == 'pick up'
    assert describe({'plan_words': (0,), 'plan': (0, 0)}, {'plan_words': (('pick',),)}) == (
        'pick at 0.50 0.50')


def test_a_plan_in_free_text_is_decoded_and_cleaned():
    text = ' pick\x1b[31m\trxbar\u202e\n chocolate\x00 '
    assert describe({'plan_ids': (7, 8)}, text=text) == 'pick[31m rxbar chocolate'
    assert describe({'plan_ids': (7,), 'plan': (0.0, 0.0)}, text='pick') == 'pick at 0.50 0.50'
    assert describe({'plan_ids': (7,)}, text='\n\x07') == ''


def test_a_long_plan_is_cut():
    assert clean_plan('word ' * 100) == ('word ' * 40).rstrip() + '\u2026'
    assert len(clean_plan('x' * 999)) == MAX_PLAN_CHARACTERS
