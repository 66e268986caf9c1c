"""What every action tokenizer keeps; each scheme's test inherits these classes."""

import functools
import random

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from vla_policy_node.token_automaton import FreeText

properties = settings(max_examples=25, deadline=None,
                      suppress_health_check=[HealthCheck.differing_executors])


def random_walk(tokenizer, seed):
    """Return a sequence of legal tokens, chosen blindly until none is legal."""
    choose = random.Random(seed).choice
    cursor = tokenizer.start()
    produced = []
    while (legal := tokenizer.legal_next(produced)).size:
        np.testing.assert_array_equal(cursor.legal, legal)
        produced.append(int(choose(legal)))
        cursor.advance(produced[-1])
        assert len(produced) <= tokenizer.max_length
    assert cursor.legal.size == 0
    return produced


def plan_text(max_tokens=5):
    """Return the slot of a plan in free text: the bins of every scheme are words, 8, 7 ends it."""
    words = np.r_[0:1300, 4000:4400, 31700:32000, 49200:49600]
    return FreeText(words=words, end=(8, 7), max_tokens=max_tokens)


PLAN_WORDS = [[[3], [4], [5, 6]], [[2, 2]]]


class ActionTokenizerContract:
    """What every scheme keeps; a subclass gives make() and the error bound in its own words."""

    max_error: float

    def make(self, **layout):
        raise NotImplementedError

    @classmethod
    @functools.cache
    def layouts(cls):
        make = cls().make
        return [
            make(), make(horizon=3), make(terminate=True),
            make(horizon=2, terminate=True, plan_length=2),
            make(plan_text=plan_text()),
            make(plan_words=PLAN_WORDS, plan_length=2),
            make(plan_text=plan_text(2), plan_words=PLAN_WORDS, plan_length=1, terminate=True),
        ]

    def test_the_stated_error_is_the_scheme_s(self):
        assert self.make().max_error == self.max_error

    @properties
    @given(values=hnp.arrays(np.float64, (2, 7), elements=st.floats(-1, 1)))
    def test_a_round_trip_errs_at_most_as_stated(self, values):
        tokenizer = self.make(horizon=2)
        decoded = tokenizer.decode(tokenizer.encode(values))
        assert np.abs(decoded.actions - values).max() <= self.max_error + 1e-9

    @properties
    @given(values=hnp.arrays(np.float64, (1, 7), elements=st.floats(-50, 50)))
    def test_values_beyond_the_range_are_clipped(self, values):
        tokenizer = self.make()
        assert tokenizer.encode(values) == tokenizer.encode(np.clip(values, -1, 1))

    @properties
    @given(values=hnp.arrays(np.float64, (2, 7), elements=st.floats(-1, 1)), flag=st.booleans(),
           plan=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
    def test_what_encode_writes_is_legal_at_every_step(self, values, flag, plan):
        tokenizer = self.make(horizon=2, terminate=True, plan_length=2)
        ids = tokenizer.encode(values, terminate=flag, plan=plan)
        for n, token in enumerate(ids):
            assert token in tokenizer.legal_next(ids[:n])
        assert tokenizer.legal_next(ids).size == 0
        decoded = tokenizer.decode(ids)
        assert decoded.terminate == flag
        assert np.abs(np.subtract(decoded.plan, plan)).max() <= self.max_error + 1e-9

    @properties
    @given(seed=st.integers(0, 2**32))
    def test_no_legal_walk_fails_to_decode(self, seed):
        for tokenizer in self.layouts():
            produced = random_walk(tokenizer, seed)
            decoded = tokenizer.decode(produced)
            again = tokenizer.decode(tokenizer.encode(
                decoded.actions, terminate=decoded.terminate, plan=decoded.plan,
                plan_words=decoded.plan_words, plan_ids=decoded.plan_ids))
            np.testing.assert_array_equal(again.actions, decoded.actions)
            assert again.plan_words == decoded.plan_words
            assert again.plan_ids == decoded.plan_ids == tuple(
                produced[:len(decoded.plan_ids)])

    @properties
    @given(text=st.lists(st.integers(0, 999).filter(lambda token: token != 8), max_size=5),
           word=st.integers(0, 2), values=hnp.arrays(np.float64, (1, 7),
                                                     elements=st.floats(-1, 1)))
    def test_a_plan_in_words_is_legal_at_every_step_and_comes_back(self, text, word, values):
        tokenizer = self.make(plan_text=plan_text(), plan_words=PLAN_WORDS, terminate=True)
        text = [token for token in text if token in tokenizer.plan_text.words]
        ids = tokenizer.encode(values, plan_ids=text, plan_words=(word, 0), terminate=True)
        assert ids[:len(text) + 2] == [*text, 8, 7]
        assert len(ids) <= tokenizer.max_length
        for n, token in enumerate(ids):
            assert token in tokenizer.legal_next(ids[:n])
        assert tokenizer.legal_next(ids).size == 0
        decoded = tokenizer.decode(ids)
        assert (decoded.plan_ids, decoded.plan_words) == (tuple(text), (word, 0))
        assert decoded.terminate is True
        plain = self.make(terminate=True)
        assert ids[-len(plain.encode(values)):] == plain.encode(values, terminate=True)

    def test_the_end_marker_may_come_at_once_and_must_come_after_the_most_tokens(self):
        tokenizer = self.make(plan_text=plan_text(2))
        assert 8 in tokenizer.legal_next([])
        assert tokenizer.legal_next([7, 1]).tolist() == [8]
        assert tokenizer.legal_next([7, 1, 8]).tolist() == [7]
        first = self.make().legal_next([]).tolist()
        assert tokenizer.legal_next([7, 1, 8, 7]).tolist() == first
        assert tokenizer.legal_next([8, 7]).tolist() == first
        assert tokenizer.max_length == 4 + self.make().max_length
        assert tokenizer.sequence_length is None

    def test_a_plan_that_cannot_be_written_is_refused(self):
        tokenizer = self.make(plan_text=plan_text(2), plan_words=PLAN_WORDS)
        zeros, words = np.zeros((1, 7)), (0, 0)
        with pytest.raises(ValueError, match='expected at most 2 tokens, found 3; shorten'):
            tokenizer.encode(zeros, plan_words=words, plan_ids=[1, 1, 1])
        with pytest.raises(ValueError, match='expected ids of words, found 8, which ends'):
            tokenizer.encode(zeros, plan_words=words, plan_ids=[1, 8])
        for wrong in ((), (3, 0), (-1, 0), (0, 0, 0)):
            with pytest.raises(ValueError, match=r'numbers below \[3, 1\] for the plan words'):
                tokenizer.encode(zeros, plan_words=wrong)
        with pytest.raises(ValueError, match='expected no plan text, found 1 tokens'):
            self.make().encode(zeros, plan_ids=[1])

    def test_a_plan_that_does_not_end_is_refused(self):
        with pytest.raises(ValueError, match='a text and 7 numbers, found 0 numbers in 2 tokens'):
            self.make(plan_text=plan_text()).decode([1, 2])

    def test_the_decoded_shapes_are_as_stated(self):
        tokenizer = self.make(horizon=3)
        decoded = tokenizer.decode(tokenizer.encode(np.zeros((3, 7))))
        assert (decoded.actions.shape, decoded.actions.dtype) == ((3, 7), np.float64)
        assert (decoded.bins.shape, decoded.bins.dtype) == ((3, 7), np.int64)
        assert (decoded.spans.shape, decoded.spans.dtype) == ((3, 7, 2), np.int64)
        assert decoded.plan == ()
        assert decoded.terminate is False

    def test_steps_and_dimensions_keep_their_order(self):
        values = np.linspace(-0.9, 0.9, 14).reshape(2, 7)
        tokenizer = self.make(horizon=2)
        decoded = tokenizer.decode(tokenizer.encode(values))
        np.testing.assert_allclose(decoded.actions, values, atol=self.max_error + 1e-9)

    def test_spans_point_at_the_tokens_of_each_bin(self):
        tokenizer = self.make(horizon=2, terminate=True, plan_length=2)
        ids = tokenizer.encode(np.linspace(-1, 1, 14).reshape(2, 7), plan=(0.5, -0.5))
        decoded = tokenizer.decode(ids)
        other = tokenizer.encode(np.zeros((2, 7)), plan=(0.5, -0.5))
        start = decoded.spans[0, 0, 0]
        assert ids[:start] == other[:start]
        assert (decoded.spans[..., 1] > decoded.spans[..., 0]).all()
        assert decoded.spans[-1, -1, 1] <= len(ids)

    def test_every_legal_id_is_among_the_token_ids(self):
        for tokenizer in self.layouts():
            assert (np.diff(tokenizer.token_ids) > 0).all()
            produced = []
            for token in random_walk(tokenizer, 7):
                legal = tokenizer.legal_next(produced)
                assert (np.diff(legal) > 0).all()
                assert np.isin(legal, tokenizer.token_ids).all()
                produced.append(token)

    def test_a_shared_array_cannot_be_changed(self):
        tokenizer = self.make()
        for array in (tokenizer.token_ids, tokenizer.bin_values, tokenizer.legal_next([])):
            assert not array.flags.writeable

    def test_an_illegal_token_is_refused_and_never_becomes_a_motion(self):
        tokenizer = self.make()
        ids = tokenizer.encode(np.zeros((1, 7)))
        ids[3] = 5
        with pytest.raises(ValueError, match='expected at position 3 .* found 5'):
            tokenizer.decode(ids)
        with pytest.raises(ValueError, match='found 5'):
            tokenizer.legal_next(ids[:4])

    def test_a_short_sequence_is_refused(self):
        tokenizer = self.make()
        ids = tokenizer.encode(np.zeros((1, 7)))
        with pytest.raises(ValueError, match='expected 7 numbers, found 6'):
            tokenizer.decode(ids[:-1])
        with pytest.raises(ValueError, match='expected 7 numbers, found 0'):
            tokenizer.decode([])

    def test_a_long_sequence_is_refused(self):
        tokenizer = self.make()
        ids = tokenizer.encode(np.zeros((1, 7)))
        with pytest.raises(ValueError, match=f'expected it to end after {len(ids)} tokens'):
            tokenizer.decode(ids + ids[-1:])

    def test_token_ids_that_are_no_integers_are_refused(self):
        with pytest.raises(ValueError, match='expected a flat list of integers'):
            self.make().decode([0.5] * 7)

    @pytest.mark.parametrize('odd', [np.nan, np.inf, -np.inf])
    def test_a_non_finite_action_is_refused(self, odd):
        values = np.zeros((1, 7))
        values[0, 2] = odd
        with pytest.raises(ValueError, match='expected finite numbers'):
            self.make().encode(values)

    def test_a_wrong_shape_is_refused(self):
        with pytest.raises(ValueError, match=r'expected shape \(2, 7\), found \(7,\)'):
            self.make(horizon=2).encode(np.zeros(7))

    def test_a_flag_the_scheme_lacks_is_refused(self):
        with pytest.raises(ValueError, match='expected terminate=False'):
            self.make().encode(np.zeros((1, 7)), terminate=True)

    def test_a_missing_plan_is_refused(self):
        with pytest.raises(ValueError, match='expected 2 plan values, found 0'):
            self.make(plan_length=2).encode(np.zeros((1, 7)))

    def test_a_horizon_of_zero_is_refused(self):
        with pytest.raises(ValueError, match='expected horizon >= 1'):
            self.make(horizon=0)


class OneTokenContract(ActionTokenizerContract):
    """Schemes whose bins are one token each, without separators."""

    def test_the_length_is_exact(self):
        assert self.make().sequence_length == self.make().max_length == 7
        assert self.make(horizon=4, terminate=True, plan_length=2).sequence_length == 31

    def test_bin_ids_and_values_are_aligned(self):
        tokenizer = self.make()
        assert (np.diff(tokenizer.bin_values) >= 0).all()
        for b in (0, 1, 127, 128, 254):
            decoded = tokenizer.decode([int(tokenizer.bin_token_ids[b])] * 7)
            assert decoded.bins.tolist() == [[b] * 7]
            np.testing.assert_array_equal(decoded.actions, tokenizer.bin_values[b])

    def test_positions_name_plan_flag_and_dimension(self):
        tokenizer = self.make(horizon=2, terminate=True, plan_length=2)
        kinds = [tokenizer.position(n) for n in range(tokenizer.sequence_length)]
        assert kinds[:4] == [('plan', 0), ('plan', 1), ('terminate', 0), ('action', 0)]
        assert kinds[-1] == ('action', 13)
        with pytest.raises(ValueError, match='expected 0 <= n < 17'):
            tokenizer.position(17)

    def test_positions_name_words_of_one_length(self):
        tokenizer = self.make(plan_words=[[[2], [3]], [[4, 5]]], plan_length=2)
        assert tokenizer.sequence_length == 12
        assert [tokenizer.position(n) for n in range(6)] == [
            ('word', 0), ('word', 1), ('word', 1), ('plan', 0), ('plan', 1), ('action', 0)]

    def test_a_place_in_a_plan_of_free_text_has_no_number(self):
        with pytest.raises(ValueError, match='no free text'):
            self.make(plan_text=plan_text()).position(0)

    def test_bins_are_no_words_of_a_plan(self):
        tokenizer = self.make(plan_text=plan_text())
        assert not np.isin(tokenizer.legal_next([]), tokenizer.bin_token_ids).any()
        assert np.array_equal(tokenizer.choice_ids, np.sort(tokenizer.bin_token_ids))
        with pytest.raises(ValueError, match='found .*, which ends the text or is no word'):
            tokenizer.encode(np.zeros((1, 7)), plan_ids=tokenizer.bin_token_ids[:1])

    def test_only_two_tokens_can_be_the_flag(self):
        tokenizer = self.make(terminate=True)
        zero_and_one = sorted(tokenizer.bin_token_ids[:2].tolist())
        assert tokenizer.legal_next([]).tolist() == zero_and_one
        assert tokenizer.legal_next(zero_and_one[:1]).size == 256

    def test_a_list_of_ids_of_wrong_length_or_with_repeats_is_refused(self):
        with pytest.raises(ValueError, match='expected 256 of them'):
            type(self.make())(token_ids=range(255))
        with pytest.raises(ValueError, match='expected numbers that can be told apart'):
            type(self.make())(token_ids=[7] * 256)

    def test_ids_must_be_placed_exactly_once(self):
        with pytest.raises(ValueError, match='found neither; give exactly one'):
            type(self.make())()
