"""What the decode engine keeps from frame to frame, and what it does when something fails."""

import gc
import math
import weakref

import finetune_families as families
import numpy as np
import pytest
from recorded_graphs import TapedGraphs
import torch
from torch import nn

from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.action_tokenizer import OverwrittenTokens
from vla_policy_node.action_tokenizer import TextNumberTokens
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.prompts import InstructionError
from vla_policy_node.token_automaton import FreeText

pytestmark = pytest.mark.slow

FIRST = families.FIRST_BIN_ID
ACTIONS = AddedTokens(first_id=FIRST)


@pytest.fixture
def model():
    return families.build('llava')


@pytest.fixture
def biased(model):
    """Give the head a bias that a test may set."""
    old = model.get_output_embeddings()
    head = nn.Linear(old.in_features, old.out_features)
    head.weight, head.bias.data = old.weight, torch.zeros(old.out_features)
    head.bias.requires_grad_(False)
    model.set_output_embeddings(head)
    return head.bias


def refuse(work):
    raise RuntimeError('operation not permitted when stream is capturing')


def tokens(decoder, seed=0, **options):
    return decoder.decode(families.prompt('llava', seed, **options)).token_ids.tolist()


def test_five_prompts_in_turn_are_each_decoded_as_if_alone(model):
    decoder = ConstrainedDecoder(model, ACTIONS)
    for _ in range(2):
        for words in (1, 2, 3, 4, 80):
            alone = ConstrainedDecoder(model, ACTIONS)
            assert tokens(decoder, words, words=words) == tokens(alone, words, words=words)


@pytest.mark.parametrize(
    'graphs', [None, TapedGraphs(), refuse], ids=['eager', 'graph', 'refused'])
def test_a_prompt_that_is_forgotten_takes_no_memory_until_a_collector_comes(model, graphs):
    decoder = ConstrainedDecoder(model, ACTIONS, graphs=graphs)
    gc.disable()
    try:
        tokens(decoder, 0)
        tokens(decoder, 0)
        first = weakref.ref(next(iter(decoder._prompts.values())))
        assert first() is not None
        for seed in range(1, 5):
            tokens(decoder, seed)
        assert first() is None
    finally:
        gc.enable()


def test_prompts_of_equal_length_with_other_words_are_told_apart(model):
    decoder = ConstrainedDecoder(model, ACTIONS)
    answers = {tuple(tokens(decoder, seed)) for seed in range(8)}
    assert answers == {tuple(tokens(ConstrainedDecoder(model, ACTIONS), seed))
                       for seed in range(8)}
    assert len(answers) > 4


def test_where_no_graph_can_be_made_every_frame_is_still_decoded(model):
    decoder = ConstrainedDecoder(model, ACTIONS, graphs=refuse)
    plain = ConstrainedDecoder(model, ACTIONS)
    words = families.prompt('llava', 0)
    for seed in range(5):
        inputs = {**words, 'pixel_values': families.prompt('llava', seed)['pixel_values']}
        assert (decoder.decode(inputs).token_ids.tolist()
                == plain.decode(inputs).token_ids.tolist())


def test_being_out_of_memory_while_a_graph_is_made_is_not_taken_for_a_refusal(model):
    def full(work):
        raise torch.OutOfMemoryError('CUDA out of memory')

    decoder = ConstrainedDecoder(model, ACTIONS, graphs=full)
    tokens(decoder)
    with pytest.raises(torch.OutOfMemoryError):
        tokens(decoder)


@pytest.mark.parametrize('graphs', [None, TapedGraphs()], ids=['step by step', 'graphs'])
def test_a_frame_that_spoils_the_cache_spoils_no_later_one(model, graphs):
    decoder = ConstrainedDecoder(model, ACTIONS, graphs=graphs)
    good = families.prompt('llava', 0)
    bad = {**good, 'pixel_values': torch.full_like(good['pixel_values'], torch.nan)}
    before = [decoder.decode(good).token_ids.tolist() for _ in range(3)]
    with pytest.raises(DecodeError, match='token 0: 256 of 256 legal logits are not finite'):
        decoder.decode(bad)
    assert [decoder.decode(good).token_ids.tolist() for _ in range(3)] == before


def test_an_error_names_the_first_token_that_has_no_finite_logit(model, biased):
    words = [[FIRST + int(digit) for digit in f'{n:03d}'] for n in range(256)]
    tokenizer = TextNumberTokens(number_token_ids=words, separator_ids=[FIRST + 10])
    biased[FIRST + 5] = torch.nan    # not legal as the first digit, which is 0, 1 or 2
    with pytest.raises(DecodeError, match='token 1: 1 of '):
        ConstrainedDecoder(model, tokenizer).decode(families.prompt('llava', 0))


def test_a_prompt_that_leaves_no_room_for_the_action_is_refused_with_both_lengths(model):
    model.config.get_text_config().max_position_embeddings = 29
    assert len(tokens(ConstrainedDecoder(model, ACTIONS), words=1)) == 7
    with pytest.raises(PolicyError, match=r'at most 29 tokens.*found 25 \+ 7') as refused:
        tokens(ConstrainedDecoder(model, ACTIONS), words=4)
    # So whoever gave the words hears that they are the trouble.
    assert isinstance(refused.value, InstructionError)


def test_first_logits_may_be_asked_for_between_replays(model):
    decoder = ConstrainedDecoder(model, ACTIONS, graphs=TapedGraphs())
    expected = tokens(ConstrainedDecoder(model, ACTIONS))
    for _ in range(4):
        logits = decoder.first_logits(families.prompt('llava', 0))
        assert FIRST + int(np.argmax(logits)) == expected[0]
        assert tokens(decoder) == expected


def test_sampling_draws_bins_in_proportion_to_their_probability_at_the_temperature(
        model, biased):
    model.get_output_embeddings().weight = nn.Parameter(
        torch.zeros_like(model.get_output_embeddings().weight))
    biased[:] = -1e4
    biased[[FIRST, FIRST + 9]] = torch.tensor([0.0, 2.0 * math.log(3.0)])
    decoder = ConstrainedDecoder(
        model, AddedTokens(first_id=FIRST, horizon=20), 'sample', temperature=2.0)
    drawn = np.concatenate([tokens(decoder) for _ in range(20)])
    assert set(drawn.tolist()) == {FIRST, FIRST + 9}
    share = np.mean(drawn == FIRST + 9)    # expected 3/4; 0.01 is the deviation of 2800 draws
    assert share == pytest.approx(0.75, abs=0.04)


def test_the_confidence_of_a_drawn_token_is_its_probability_at_temperature_one(model, biased):
    model.get_output_embeddings().weight = nn.Parameter(
        torch.zeros_like(model.get_output_embeddings().weight))
    biased[:] = -1e4
    biased[[FIRST, FIRST + 9]] = torch.tensor([0.0, math.log(3.0)])
    decoding = ConstrainedDecoder(model, ACTIONS, 'sample', temperature=5.0).decode(
        families.prompt('llava', 0))
    expected = np.where(decoding.token_ids == FIRST, 0.25, 0.75)
    np.testing.assert_allclose(decoding.probabilities, expected, rtol=1e-5)


def test_the_same_seed_draws_the_same_and_another_one_other_actions(model):
    first, same, other = (
        [tokens(ConstrainedDecoder(model, ACTIONS, 'sample', temperature=3.0, seed=seed))
         for _ in range(2)] for seed in (4, 4, 5))
    assert first == same
    assert first != other


def test_sampling_through_graphs_draws_anew_for_every_frame(model):
    decoder = ConstrainedDecoder(
        model, ACTIONS, 'sample', temperature=3.0, graphs=TapedGraphs())
    plain = ConstrainedDecoder(model, ACTIONS, 'sample', temperature=3.0)
    drawn = [tokens(decoder) for _ in range(6)]
    assert drawn == [tokens(plain) for _ in range(6)]
    assert len(set(map(tuple, drawn))) == 6


def test_plans_and_the_end_of_a_task_are_never_drawn(model):
    tokenizer = AddedTokens(first_id=FIRST, plan_length=2, terminate=True)
    greedy = tokens(ConstrainedDecoder(model, tokenizer))
    decoder = ConstrainedDecoder(model, tokenizer, 'sample', temperature=50.0)
    drawn = [tokens(decoder) for _ in range(10)]
    assert {tuple(each[:3]) for each in drawn} == {tuple(greedy[:3])}
    assert len({tuple(each[3:]) for each in drawn}) == 10


def test_digits_are_drawn_within_what_is_legal_after_a_plan_in_text(model):
    words = [[FIRST + int(digit) for digit in f'{n:03d}'] for n in range(256)]
    text = FreeText(words=range(20, 40), end=(41,), max_tokens=3)
    tokenizer = TextNumberTokens(number_token_ids=words, plan_text=text)
    decoder = ConstrainedDecoder(model, tokenizer, 'sample', temperature=50.0)
    drawn = [tokenizer.decode(tokens(decoder)).bins.tolist() for _ in range(5)]
    assert len({str(each) for each in drawn}) == 5


@pytest.mark.parametrize('temperature', [0.0, -1.0, float('nan'), float('inf')])
def test_a_temperature_that_is_no_positive_number_is_refused(model, temperature):
    with pytest.raises(PolicyError, match='expected a temperature above 0'):
        ConstrainedDecoder(model, ACTIONS, 'sample', temperature=temperature)


def test_forced_tokens_before_between_and_after_are_certain_and_cost_no_choice(model):
    words = [[[51]], [[60], [61]], [[70]]]
    tokenizer = OverwrittenTokens(vocab_size=FIRST + 256, plan_words=words)
    decoding = ConstrainedDecoder(model, tokenizer).decode(families.prompt('llava', 0))
    assert decoding.token_ids[[0, 2]].tolist() == [51, 70]
    assert decoding.probabilities[[0, 2]].tolist() == [1.0, 1.0]
    slow = ConstrainedDecoder(model, tokenizer, fixed_shapes=True)
    assert tokens(slow) == decoding.token_ids.tolist()
