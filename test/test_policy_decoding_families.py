"""In every family, decoding gives what masked greedy decoding with the full head would give."""

import finetune_families as families
import numpy as np
import pytest
from recorded_graphs import TapedGraphs
import torch

from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.policy.decoding import ConstrainedDecoder

pytestmark = pytest.mark.slow

ACTIONS = AddedTokens(first_id=families.FIRST_BIN_ID)
N_TOKENS = 7
BATCH = 100
# Families whose prompt needs no value of a tensor: all of decoding becomes a graph.
WHOLE_GRAPH = {'llava', 'paligemma', 'paligemma2', 'gemma3', 'internvl', 'openvla'}


@pytest.fixture(scope='module', params=list(families.FAMILIES))
def name(request):
    return request.param


@pytest.fixture(scope='module')
def model(name):
    """In double precision: one input and a batch of them then differ by nothing that matters."""
    model = families.build(name).double()
    if name == 'gemma3':  # Its projector is made of zeros, so that pictures would not matter.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    return model


def frames(name, prompt_seed, pixel_seeds):
    """Return the inputs of one prompt with other pixels each time."""
    words = families.prompt(name, prompt_seed)
    for seed in pixel_seeds:
        pixels = families.prompt(name, seed)
        yield {key: pixels[key].double() if value.is_floating_point() else value
               for key, value in words.items()}


def masked_greedy(name, model, batch, token_ids):
    """
    Return the (B, 7) legal ids that the full head likes best after each part of token_ids.

    Equal to token_ids exactly where those are what greedy decoding with a mask gives.
    """
    written = torch.from_numpy(token_ids[:, :-1])
    inputs = {key: torch.cat([frame[key] for frame in batch]) for key in batch[0]}
    inputs['input_ids'] = torch.cat([inputs['input_ids'], written], dim=1)
    inputs['attention_mask'] = torch.ones_like(inputs['input_ids'])
    if name.startswith('paligemma'):
        # Only for training does this family take words that are read in one direction.
        inputs['labels'] = inputs['input_ids'].clone()
    for key in ('token_type_ids', 'mm_token_type_ids'):
        if key in inputs:
            kind = inputs[key].new_full(written.shape, int(name.startswith('paligemma')))
            inputs[key] = torch.cat([inputs[key], kind], dim=1)
    model.train(name.startswith('paligemma'))
    with torch.inference_mode():
        logits = model(**inputs).logits[:, -N_TOKENS:]
    model.eval()
    legal = torch.tensor(ACTIONS.token_ids.tolist())
    masked = torch.full_like(logits, -torch.inf)
    masked[..., legal] = logits[..., legal]
    return masked.argmax(-1).numpy()


def test_a_thousand_random_frames_give_the_tokens_of_masked_greedy_decoding(name, model):
    decoder = ConstrainedDecoder(model, ACTIONS)
    distinct = set()
    for prompt_seed in range(1000 // BATCH):
        seeds = range(BATCH * prompt_seed, BATCH * (prompt_seed + 1))
        batch = list(frames(name, prompt_seed, seeds))
        ours = np.array([decoder.decode(inputs).token_ids for inputs in batch])
        np.testing.assert_array_equal(ours, masked_greedy(name, model, batch, ours))
        distinct |= set(map(tuple, ours.tolist()))
    assert len(distinct) > 500, 'the pictures hardly matter: a weak test'


def test_graphs_give_the_same_tokens_and_confidence_as_running_step_by_step(name, model):
    graphs = TapedGraphs()
    replayed = ConstrainedDecoder(model, ACTIONS, graphs=graphs)
    plain = ConstrainedDecoder(model, ACTIONS)
    for prompt_seed in (0, 1):
        for inputs in frames(name, prompt_seed, range(20)):
            ours, theirs = replayed.decode(inputs), plain.decode(inputs)
            assert ours.token_ids.tolist() == theirs.token_ids.tolist()
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-5)
    assert (graphs.made, graphs.refused) == ((4, 0) if name in WHOLE_GRAPH else (2, 2))
