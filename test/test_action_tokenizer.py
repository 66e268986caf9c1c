"""Action tokenizers: each scheme under the common contract, with its golden values."""

from action_tokenizer_contract import ActionTokenizerContract
from action_tokenizer_contract import OneTokenContract
from action_tokenizer_contract import properties
from action_tokenizer_contract import random_walk
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from vla_policy_node.action_bins import EVEN_BINS
from vla_policy_node.action_bins import OPENVLA_BINS
from vla_policy_node.action_bins import RT1_LEVELS
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.action_tokenizer import build_action_tokenizer
from vla_policy_node.action_tokenizer import LevelTokens
from vla_policy_node.action_tokenizer import OverwrittenTokens
from vla_policy_node.action_tokenizer import plan_token_ids
from vla_policy_node.action_tokenizer import text_number_ids
from vla_policy_node.action_tokenizer import TextNumberTokens
from vla_policy_node.token_automaton import FreeText
from vla_policy_node.vla_config import TokenizerConfig

SPACE = 9
DIGIT_WORDS = [[10 + int(digit) for digit in str(number)] for number in range(256)]


def padded_words():
    """Return '000'..'255': three digit tokens each, so no number begins another."""
    return [[10 + int(digit) for digit in f'{number:03}'] for number in range(256)]


class TestOverwrittenTokens(OneTokenContract):
    max_error = 1 / 255

    def make(self, **layout):
        return OverwrittenTokens(vocab_size=32000, **layout)

    @pytest.mark.parametrize(('value', 'token', 'decoded'), [
        (-1.0, 31999, -0.9960784), (-0.5, 31936, -0.5019608), (0.0, 31872, 0.0),
        (0.5, 31808, 0.5019608), (0.999, 31745, 0.9960784), (1.0, 31744, 0.9960784),
    ])
    def test_the_golden_values_of_openvla(self, value, token, decoded):
        tokenizer = self.make()
        ids = tokenizer.encode(np.full((1, 7), value))
        assert ids == [token] * 7
        np.testing.assert_allclose(tokenizer.decode(ids).actions, decoded, atol=5e-8)

    def test_zero_comes_back_exactly(self):
        tokenizer = self.make()
        assert tokenizer.decode([31872] * 7).actions.tolist() == [[0.0] * 7]

    def test_the_two_uppermost_ids_decode_alike(self):
        tokenizer = self.make()
        low, high = tokenizer.decode([31744] * 7), tokenizer.decode([31745] * 7)
        np.testing.assert_array_equal(low.actions, high.actions)

    def test_the_legal_ids_are_the_last_256_of_the_base_vocabulary(self):
        assert self.make().token_ids.tolist() == list(range(31744, 32000))
        assert self.make().legal_next([]).tolist() == list(range(31744, 32000))

    @pytest.mark.parametrize('token', [2, 29871, 31743, 32000, 32063, -1])
    def test_ids_that_openvla_turns_into_full_motion_are_refused(self, token):
        with pytest.raises(ValueError, match=rf'in \[31744, 31999\], found {token}'):
            self.make().decode([token] * 7)

    def test_an_explicit_list_replaces_the_last_ids(self):
        tokenizer = OverwrittenTokens(token_ids=[1000 + 3 * b for b in range(256)])
        assert tokenizer.encode(np.full((1, 7), -1.0)) == [1000] * 7
        assert tokenizer.bin_token_ids[2] == 1006

    def test_a_vocabulary_too_small_for_the_bins_is_refused(self):
        with pytest.raises(ValueError, match='vocab_size: expected at least 256, found 100'):
            OverwrittenTokens(vocab_size=100)


class TestAddedTokens(OneTokenContract):
    max_error = 1 / 256

    def make(self, **layout):
        return AddedTokens(first_id=49280, **layout)

    def test_bin_zero_is_the_first_added_token(self):
        tokenizer = self.make()
        values = np.array([[-1.0, 1.0, 0.0, -0.001, 0.999, -0.999, 0.5]])
        assert tokenizer.encode(values) == [
            49280, 49535, 49408, 49407, 49535, 49280, 49472]


class TestLevelTokens(OneTokenContract):
    max_error = 2 / 255

    def make(self, **layout):
        return LevelTokens(first_id=0x1000, **layout)

    def test_levels_are_truncated_as_published(self):
        tokenizer = self.make()
        values = [[-1.0, 1.0, 0.0, 0.99, -0.99, 0.5, -0.5]]
        levels = [int((v + 1.0) / 2.0 * 255) for v in values[0]]
        assert levels == [0, 255, 127, 253, 1, 191, 63]
        assert tokenizer.encode(values) == [0x1000 + level for level in levels]

    def test_both_ends_are_reached_exactly(self):
        tokenizer = self.make()
        values = np.array([[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0]])
        np.testing.assert_array_equal(tokenizer.decode(tokenizer.encode(values)).actions, values)

    def test_truncation_never_rounds_up(self):
        values = np.linspace(-1, 1, 5001)
        decoded = RT1_LEVELS.values[RT1_LEVELS.encode(values)]
        assert (decoded <= values + 1e-9).all()


class TestSingleTokenText(ActionTokenizerContract):
    """A vocabulary in which every number is one token, written with spaces between."""

    max_error = 1 / 256

    def make(self, **layout):
        words = [[1000 + number] for number in range(256)]
        return TextNumberTokens(number_token_ids=words, separator_ids=[SPACE], **layout)

    def test_the_recipe_s_example_is_written_with_its_flag(self):
        tokenizer = self.make(terminate=True)
        ids = tokenizer.encode(
            EVEN_BINS.values[[[128, 91, 241, 5, 101, 127, 255]]], terminate=True)
        assert ids[0::2] == [1001, 1128, 1091, 1241, 1005, 1101, 1127, 1255]
        assert set(ids[1::2]) == {SPACE}

    def test_nothing_follows_the_last_number(self):
        assert self.make().sequence_length == 13
        assert len(self.make().encode(np.zeros((1, 7)))) == 13

    def test_a_separator_is_the_only_legal_token_between_numbers(self):
        assert self.make().legal_next([1007]).tolist() == [SPACE]

    def test_positions_name_the_separators(self):
        tokenizer = self.make(terminate=True)
        assert [tokenizer.position(n) for n in range(4)] == [
            ('terminate', 0), ('separator', 0), ('action', 0), ('separator', 1)]


class TestDigitText(ActionTokenizerContract):
    """A vocabulary that splits numbers into digits: '1' begins '12' begins '128'."""

    max_error = 1 / 256

    def make(self, **layout):
        return TextNumberTokens(
            number_token_ids=DIGIT_WORDS, separator_ids=[SPACE], **layout)

    def test_after_12_come_the_digits_of_12x_or_the_end_of_the_number(self):
        legal = self.make().legal_next([11, 12])
        assert legal.tolist() == [SPACE, *range(10, 20)]

    def test_no_number_above_255_can_be_written(self):
        tokenizer = self.make()
        assert tokenizer.legal_next([12, 15]).tolist() == [SPACE, *range(10, 16)]
        assert tokenizer.legal_next([12, 15, 15]).tolist() == [SPACE]
        assert tokenizer.legal_next([13, 10]).tolist() == [SPACE]

    def test_no_number_begins_with_a_zero_digit_but_zero(self):
        assert self.make().legal_next([10]).tolist() == [SPACE]

    def test_the_last_number_is_ended_by_a_separator(self):
        tokenizer = self.make()
        ids = tokenizer.encode(np.zeros((1, 7)))
        assert ids == [11, 12, 18, SPACE] * 7
        assert tokenizer.legal_next(ids[:-1]).tolist() == [SPACE]

    def test_the_flag_is_zero_or_one_and_then_a_separator(self):
        tokenizer = self.make(terminate=True)
        assert tokenizer.legal_next([]).tolist() == [10, 11]
        assert tokenizer.legal_next([11]).tolist() == [SPACE]

    def test_lengths_and_bins_have_no_fixed_place(self):
        tokenizer = self.make()
        assert tokenizer.sequence_length is None
        assert tokenizer.bin_token_ids is None
        assert tokenizer.max_length == 28
        with pytest.raises(ValueError, match='expected a scheme with one token per number'):
            tokenizer.position(0)

    def test_without_a_separator_the_vocabulary_is_refused(self):
        with pytest.raises(ValueError, match='expected numbers that can be told apart.* give a '
                                             'separator'):
            TextNumberTokens(number_token_ids=DIGIT_WORDS)

    def test_a_separator_that_numbers_contain_is_refused(self):
        with pytest.raises(ValueError, match='expected numbers that can be told apart'):
            TextNumberTokens(number_token_ids=DIGIT_WORDS, separator_ids=[10])


class TestPaddedText(ActionTokenizerContract):
    """Three digits each: no number begins another, so no separator is needed."""

    max_error = 1 / 256

    def make(self, **layout):
        return TextNumberTokens(number_token_ids=padded_words(), **layout)

    def test_numbers_follow_each_other_directly(self):
        assert self.make().encode(np.full((1, 7), -1.0)) == [10] * 21


class TestLongSeparatorText(ActionTokenizerContract):
    """Digits and a separator of two tokens."""

    max_error = 1 / 256

    def make(self, **layout):
        return TextNumberTokens(
            number_token_ids=DIGIT_WORDS, separator_ids=[SPACE, SPACE], **layout)


def digit_encoder(text):
    """Tokenize as a vocabulary of digits and a space does."""
    return [SPACE if character == ' ' else 10 + int(character) for character in text]


def word_encoder(text):
    """Tokenize as a vocabulary that has ' 128' as one token does."""
    return [1000 + int(text)] if text.strip() else [SPACE]


def test_a_number_that_swallows_its_space_needs_no_separator():
    found = text_number_ids(word_encoder, ' ')
    assert found['number_token_ids'][128] == (1128,)
    assert found['separator_ids'] == ()


def test_digits_are_written_with_the_space_between_them():
    found = text_number_ids(digit_encoder, ' ')
    assert found['number_token_ids'][128] == (11, 12, 18)
    assert found['separator_ids'] == (SPACE,)


def test_digits_without_a_separator_are_refused():
    with pytest.raises(ValueError, match='give a separator'):
        TextNumberTokens(**text_number_ids(digit_encoder, ''))


@pytest.mark.parametrize(('fields', 'kind'), [
    ({'scheme': 'overwritten', 'vocab_size': 32000}, OverwrittenTokens),
    ({'scheme': 'overwritten', 'token_ids': tuple(range(256))}, OverwrittenTokens),
    ({'scheme': 'added', 'first_id': 300}, AddedTokens),
    ({'scheme': 'levels', 'first_id': 300}, LevelTokens),
])
def test_the_configured_scheme_is_built(fields, kind):
    config = TokenizerConfig(horizon=2, terminate=True, plan_length=1, **fields)
    tokenizer = build_action_tokenizer(config)
    assert isinstance(tokenizer, kind)
    assert tokenizer.sequence_length == 16


def test_the_text_scheme_is_built_from_the_model_s_numbers():
    config = TokenizerConfig(scheme='text', separator=' ')
    tokenizer = build_action_tokenizer(config, **text_number_ids(digit_encoder, ' '))
    assert isinstance(tokenizer, TextNumberTokens)
    with pytest.raises(ValueError, match='expected number_token_ids, found none'):
        build_action_tokenizer(config)


def letter_encoder(text):
    """Tokenize as a vocabulary of single letters, without white space, does."""
    return [ord(letter) for letter in text if not letter.isspace()]


PLANNED = {'scheme': 'added', 'first_id': 300, 'plan_length': 2,
           'plan_words': [['a', 'bc'], ['at']], 'plan_text': {'max_tokens': 3, 'end': '.'}}


def test_a_plan_is_built_as_the_model_s_tokenizer_writes_it():
    config = TokenizerConfig.model_validate(PLANNED)
    ids = plan_token_ids(config, letter_encoder, lambda: range(97, 400))
    tokenizer = build_action_tokenizer(config, **ids)
    sequence = tokenizer.encode(
        np.zeros((1, 7)), plan=(-1, 1), plan_words=(1, 0), plan_ids=[104, 105])
    assert sequence[:9] == [104, 105, 46, 98, 99, 97, 116, 300, 555]
    # Letters and the full stop, but no action token.
    assert tokenizer.legal_next([]).tolist() == [46, *range(97, 300)]


def test_a_vocabulary_is_not_asked_for_where_no_text_is_planned():
    config = TokenizerConfig(scheme='added', first_id=300)
    assert plan_token_ids(config, letter_encoder, lambda: 1 / 0) == {}


def test_an_end_marker_that_the_tokenizer_drops_is_refused():
    config = TokenizerConfig.model_validate({**PLANNED, 'plan_text': {}})
    with pytest.raises(ValueError, match=r"expected text that the model can write, found '\\n'"):
        plan_token_ids(config, letter_encoder, lambda: range(97, 120))


def test_a_configured_plan_needs_its_ids():
    config = TokenizerConfig.model_validate(PLANNED)
    with pytest.raises(ValueError, match='ids of plan_words exactly where the configuration'):
        build_action_tokenizer(config)
    with pytest.raises(ValueError, match='ids of plan_words exactly where the configuration'):
        build_action_tokenizer(
            TokenizerConfig(scheme='added', first_id=300), plan_words=[[[1]]])


def test_numbers_may_be_words_of_a_plan_where_bins_are_numbers():
    tokenizer = TextNumberTokens(
        number_token_ids=[[1000 + number] for number in range(256)],
        plan_text=FreeText(words=np.arange(1200), end=(13,), max_tokens=4))
    assert {1000, 1199} <= set(tokenizer.legal_next([]).tolist())
    assert tokenizer.choice_ids.tolist() == list(range(1000, 1256))


def test_words_of_which_one_begins_another_are_refused_without_a_separator():
    with pytest.raises(ValueError, match='can be told apart'):
        AddedTokens(first_id=300, plan_words=[[[1], [1, 2]]])
    tokenizer = TextNumberTokens(number_token_ids=DIGIT_WORDS, separator_ids=[SPACE],
                                 plan_words=[[[1], [1, 2]]])
    assert tokenizer.legal_next([1]).tolist() == [2, SPACE]


@pytest.mark.parametrize(('words', 'end', 'message'), [
    ([1, 2], (), r'an end marker of at least one id >= 0'),
    ([1, 2], (-3,), r'an end marker of at least one id >= 0'),
    ([3], (3,), 'at least one id >= 0 to write with'),
    ([-1, 2], (3,), r'found \[-1, 2\]'),
])
def test_a_text_that_cannot_be_written_or_closed_is_refused(words, end, message):
    with pytest.raises(ValueError, match=message):
        FreeText(words=words, end=end, max_tokens=3)


@properties
@given(vocabulary=st.sets(st.integers(0, 60), min_size=2), data=st.data(),
       max_tokens=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_any_vocabulary_and_marker_give_bounded_plans_that_decode(
        vocabulary, data, max_tokens, seed):
    end = data.draw(st.lists(st.sampled_from(sorted(vocabulary)), min_size=1, max_size=3))
    tokenizer = TextNumberTokens(
        number_token_ids=DIGIT_WORDS, separator_ids=[SPACE], terminate=True,
        plan_text=FreeText(words=sorted(vocabulary), end=end, max_tokens=max_tokens))
    walk = random_walk(tokenizer, seed)
    decoded = tokenizer.decode(walk)
    n = len(decoded.plan_ids)
    assert n <= max_tokens
    assert set(decoded.plan_ids) <= vocabulary - {end[0]}
    assert walk[n:n + len(end)] == end
    again = tokenizer.encode(
        decoded.actions, terminate=decoded.terminate, plan_ids=decoded.plan_ids)
    assert again == walk


@pytest.mark.parametrize('quantizer', [EVEN_BINS, OPENVLA_BINS, RT1_LEVELS])
def test_decoded_values_keep_their_bin(quantizer):
    bins = quantizer.encode(quantizer.values)
    np.testing.assert_array_equal(quantizer.values[bins], quantizer.values)
