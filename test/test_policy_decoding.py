"""Constrained decoding equals generate with a mask, and never yields an illegal token."""

import numpy as np
from policy_models import FIRST_NUMBER_ID
from policy_models import IMAGE_SIZE
from policy_models import qwen
from policy_models import qwen_inputs
from policy_models import save_llava
from policy_models import save_paligemma
import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers import AutoProcessor
from transformers import GenerationConfig
from transformers import LogitsProcessorList

from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.action_tokenizer import TextNumberTokens
from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.inputs import InputBuilder
from vla_policy_node.token_automaton import FreeText

pytestmark = pytest.mark.slow

WORD_IDS = range(7, FIRST_NUMBER_ID)
END_ID = 2
PROMPT = 'pick up the red block <image> Action:'
N_IMAGES = {torch.float32: 50, torch.bfloat16: 20}


class Family:
    """A tiny random model with a prompt and random images."""

    def __init__(self, directory, dtype):
        self.model = AutoModelForImageTextToText.from_pretrained(directory, dtype=dtype).eval()
        self._builder = InputBuilder(
            AutoProcessor.from_pretrained(directory), chat=False, device='cpu', dtype=dtype)

    def inputs(self, seed):
        shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
        image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        return self._builder.build(PROMPT, [image])


def planner(max_tokens=6, end=(END_ID,), **layout):
    """Return a tokenizer whose actions follow a plan in free text."""
    text = FreeText(words=WORD_IDS, end=end, max_tokens=max_tokens)
    return AddedTokens(first_id=FIRST_NUMBER_ID, plan_text=text, **layout)


@pytest.fixture(scope='module', params=['llava', 'paligemma'])
def directory(request, tmp_path_factory):
    save = {'llava': save_llava, 'paligemma': save_paligemma}[request.param]
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module', params=[torch.float32, torch.bfloat16], ids=str)
def family(request, directory):
    return Family(directory, request.param)


@pytest.fixture(scope='module')
def llava(tmp_path_factory):
    return Family(save_llava(tmp_path_factory.mktemp('llava')), torch.float32)


@pytest.fixture
def biased(llava):
    """Give the head a bias that a test may set; the old head comes back afterwards."""
    old = llava.model.get_output_embeddings()
    head = nn.Linear(old.in_features, old.out_features)
    head.weight, head.bias.data = old.weight, torch.zeros(old.out_features)
    head.bias.requires_grad_(False)
    llava.model.set_output_embeddings(head)
    yield head.bias
    llava.model.set_output_embeddings(old)


def generate_with_mask(model, inputs, tokenizer, n_tokens):
    """Decode as transformers would: the full head, and a mask over all ids but the legal."""
    prompt_length = inputs['input_ids'].shape[1]

    def mask(input_ids, scores):
        legal = tokenizer.legal_next(input_ids[0, prompt_length:].tolist()).tolist()
        masked = torch.full_like(scores, -torch.inf)
        masked[:, legal] = scores[:, legal]
        return masked

    config = GenerationConfig(
        max_new_tokens=n_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    out = model.generate(
        **inputs, generation_config=config, logits_processor=LogitsProcessorList([mask]))
    return out[0, prompt_length:].tolist()


def test_decoding_equals_generate_with_a_mask_on_the_full_head(family):
    tokenizer = AddedTokens(first_id=FIRST_NUMBER_ID, plan_length=2, terminate=True)
    decoder = ConstrainedDecoder(family.model, tokenizer)
    n_images = N_IMAGES[family.model.dtype]
    seen = set()
    for seed in range(n_images):
        inputs = family.inputs(seed)
        ids = decoder.decode(inputs).token_ids.tolist()
        assert ids == generate_with_mask(family.model, inputs, tokenizer, 10)
        seen.add(tuple(ids))
    assert len(seen) > n_images // 2, 'the images hardly matter: a weak test'


def test_numbers_of_several_tokens_with_forced_separators_decode_alike(llava):
    words = [[FIRST_NUMBER_ID + int(digit) for digit in f'{n:03d}'] for n in range(256)]
    tokenizer = TextNumberTokens(number_token_ids=words, separator_ids=[FIRST_NUMBER_ID + 10])
    decoder = ConstrainedDecoder(llava.model, tokenizer)
    for seed in range(10):
        inputs = llava.inputs(seed)
        decoding = decoder.decode(inputs)
        ids = decoding.token_ids.tolist()
        assert ids == generate_with_mask(llava.model, inputs, tokenizer, len(ids))
        assert (decoding.probabilities[3::4] == 1.0).all()
        tokenizer.decode(ids)


def test_a_plan_in_free_text_is_decoded_as_generate_would(family):
    words = [[[WORD_IDS[3]], [WORD_IDS[4]]], [[WORD_IDS[5], WORD_IDS[6]]]]
    tokenizer = planner(max_tokens=4, end=(END_ID, 3), plan_words=words, plan_length=1)
    decoder = ConstrainedDecoder(family.model, tokenizer)
    for seed in range(10):
        inputs = family.inputs(seed)
        ids = decoder.decode(inputs).token_ids.tolist()
        assert ids == generate_with_mask(family.model, inputs, tokenizer, len(ids))
        assert len(tokenizer.decode(ids).plan_ids) <= 4


def test_a_plan_without_end_is_closed_at_its_bound(llava, biased):
    biased[:] = -1e4
    biased[:FIRST_NUMBER_ID] = 1e4
    biased[END_ID] = -1e5
    decoding = ConstrainedDecoder(llava.model, planner(max_tokens=5)).decode(llava.inputs(0))
    assert set(decoding.token_ids[:5].tolist()) <= set(WORD_IDS)
    assert decoding.token_ids[5] == END_ID
    assert decoding.probabilities[5] == 1.0
    assert decoding.token_ids.size == 5 + 1 + 7


def test_a_plan_may_be_empty_and_the_same_action_follows_every_time(llava, biased):
    biased[END_ID] = 1e4
    tokenizer = planner(horizon=2)
    decoding = ConstrainedDecoder(llava.model, tokenizer).decode(llava.inputs(0))
    assert decoding.token_ids[0] == END_ID
    assert tokenizer.decode(decoding.token_ids).plan_ids == ()
    assert decoding.token_ids.size == 1 + 14


def test_a_plan_holds_no_special_token_however_much_the_model_wants_it(llava, biased):
    tokenizer = planner()
    calm = ConstrainedDecoder(llava.model, tokenizer).decode(llava.inputs(1))
    biased[[0, 1, 3, 4, 5, 6]] = float('nan')
    wild = ConstrainedDecoder(llava.model, tokenizer).decode(llava.inputs(1))
    assert wild.token_ids.tolist() == calm.token_ids.tolist()


def test_a_word_whose_logit_is_not_finite_raises(llava, biased):
    biased[WORD_IDS[2]] = float('nan')
    with pytest.raises(DecodeError, match='token 0: 1 of 16 legal logits'):
        ConstrainedDecoder(llava.model, planner()).decode(llava.inputs(0))


def test_only_actions_are_expectations_after_a_plan_in_text(llava):
    tokenizer = planner(terminate=True, plan_length=2)
    greedy, expected = (
        ConstrainedDecoder(llava.model, tokenizer, decoding).decode(llava.inputs(3))
        for decoding in ('greedy', 'expectation'))
    plan = tokenizer.decode(expected.token_ids).plan_ids
    before = len(plan) + 1 + 2 + 1
    assert expected.token_ids[:before].tolist() == greedy.token_ids[:before].tolist()
    assert np.isnan(expected.values).tolist() == [True] * before + [False] * 7


def test_the_whole_head_is_computed_for_a_plan_in_text_only(llava):
    inputs = llava.inputs(0)
    with torch.inference_mode():
        logits = llava.model(**inputs).logits[0, -1].numpy()
    whole = ConstrainedDecoder(llava.model, planner()).first_logits(inputs)
    np.testing.assert_allclose(whole[:16], logits[[END_ID, *WORD_IDS]], rtol=1e-4, atol=1e-4)
    plain = AddedTokens(first_id=FIRST_NUMBER_ID)
    cut = ConstrainedDecoder(llava.model, plain).first_logits(inputs)
    np.testing.assert_allclose(cut, logits[FIRST_NUMBER_ID:], rtol=1e-4, atol=1e-4)


def test_words_beyond_the_vocabulary_are_refused(llava):
    text = FreeText(words=range(400), end=(END_ID,), max_tokens=3)
    with pytest.raises(PolicyError, match='ids 0..399.*ids 0..277'):
        ConstrainedDecoder(
            llava.model, AddedTokens(first_id=FIRST_NUMBER_ID, plan_text=text))


def test_two_forced_tokens_in_one_step_keep_three_axis_positions():
    words = [[100 + int(digit) for digit in f'{n:03d}'] for n in range(256)]
    tokenizer = TextNumberTokens(number_token_ids=words, separator_ids=[120, 121])
    model = qwen()
    decoder = ConstrainedDecoder(model, tokenizer)
    for seed in range(5):
        inputs = qwen_inputs(seed)
        ids = decoder.decode(inputs).token_ids.tolist()
        assert ids == generate_with_mask(model, inputs, tokenizer, len(ids))


def test_the_number_of_tokens_is_exactly_what_the_action_needs(llava):
    decoder = ConstrainedDecoder(llava.model, AddedTokens(first_id=FIRST_NUMBER_ID, horizon=3))
    assert decoder.decode(llava.inputs(0)).token_ids.shape == (21,)


def test_a_model_that_wants_illegal_ids_and_the_end_gets_neither(llava, biased):
    tokenizer = AddedTokens(first_id=FIRST_NUMBER_ID)
    calm = ConstrainedDecoder(llava.model, tokenizer).decode(llava.inputs(1))
    biased[:FIRST_NUMBER_ID] = 1e4
    wild = ConstrainedDecoder(llava.model, tokenizer).decode(llava.inputs(1))
    assert wild.token_ids.tolist() == calm.token_ids.tolist()
    np.testing.assert_array_equal(wild.probabilities, calm.probabilities)


def test_the_bias_of_the_head_is_kept(llava, biased):
    biased[FIRST_NUMBER_ID + 77] = 1e4
    decoder = ConstrainedDecoder(llava.model, AddedTokens(first_id=FIRST_NUMBER_ID))
    assert set(decoder.decode(llava.inputs(0)).token_ids) == {FIRST_NUMBER_ID + 77}


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
@pytest.mark.parametrize('rows', [slice(None), slice(FIRST_NUMBER_ID + 9, FIRST_NUMBER_ID + 10)])
def test_logits_that_are_not_finite_raise_and_never_become_an_action(llava, biased, value, rows):
    biased[rows] = value
    decoder = ConstrainedDecoder(llava.model, AddedTokens(first_id=FIRST_NUMBER_ID))
    with pytest.raises(DecodeError, match='not finite'):
        decoder.decode(llava.inputs(0))


def test_the_head_is_whole_again_after_a_failure(llava, biased):
    biased[:] = float('nan')
    decoder = ConstrainedDecoder(llava.model, AddedTokens(first_id=FIRST_NUMBER_ID))
    with pytest.raises(DecodeError):
        decoder.decode(llava.inputs(0))
    with torch.inference_mode():
        logits = llava.model(**llava.inputs(0)).logits
    assert logits.shape[-1] == llava.model.config.text_config.vocab_size


def test_confidence_is_the_softmax_among_the_legal_ids(llava):
    tokenizer = AddedTokens(first_id=FIRST_NUMBER_ID)
    inputs = llava.inputs(2)
    decoding = ConstrainedDecoder(llava.model, tokenizer).decode(inputs)
    with torch.inference_mode():
        legal = llava.model(**inputs).logits[0, -1, FIRST_NUMBER_ID:]
    assert decoding.probabilities[0] == pytest.approx(float(legal.softmax(-1).max()), rel=1e-4)


def test_expectation_is_the_mean_of_the_bins_and_feeds_back_the_nearest(llava, biased):
    biased[:] = -1e4
    biased[[FIRST_NUMBER_ID, FIRST_NUMBER_ID + 255]] = 1e4
    llava.model.get_output_embeddings().weight = nn.Parameter(
        torch.zeros_like(llava.model.get_output_embeddings().weight))
    decoder = ConstrainedDecoder(
        llava.model, AddedTokens(first_id=FIRST_NUMBER_ID, plan_length=1), 'expectation')
    decoding = decoder.decode(llava.inputs(0))
    np.testing.assert_allclose(decoding.values[1:], 0.0, atol=1e-12)
    middle = {FIRST_NUMBER_ID + 127, FIRST_NUMBER_ID + 128}
    assert set(decoding.token_ids[1:].tolist()) <= middle


def test_a_plan_is_chosen_greedily_under_expectation(llava):
    tokenizer = AddedTokens(first_id=FIRST_NUMBER_ID, plan_length=2, terminate=True)
    greedy, expected = (
        ConstrainedDecoder(llava.model, tokenizer, decoding).decode(llava.inputs(5))
        for decoding in ('greedy', 'expectation'))
    assert expected.token_ids[:3].tolist() == greedy.token_ids[:3].tolist()
    assert np.isnan(expected.values).tolist() == [True] * 3 + [False] * 7


def test_expectation_needs_one_token_per_bin(llava):
    words = [[FIRST_NUMBER_ID + int(digit) for digit in f'{n:03d}'] for n in range(256)]
    with pytest.raises(PolicyError, match='one token per bin'):
        ConstrainedDecoder(llava.model, TextNumberTokens(number_token_ids=words), 'expectation')


def test_an_unknown_decoding_is_refused_with_the_known_ones(llava):
    with pytest.raises(PolicyError, match="greedy, expectation, sample, found 'beam'"):
        ConstrainedDecoder(llava.model, AddedTokens(first_id=FIRST_NUMBER_ID), 'beam')


def test_action_tokens_beyond_the_vocabulary_are_refused(llava):
    with pytest.raises(PolicyError, match='31744..31999.*ids 0..277'):
        ConstrainedDecoder(llava.model, AddedTokens(first_id=31744))
