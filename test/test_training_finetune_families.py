"""What training computes for a label is what execution sees when it decodes that label."""

from finetune_families import build
from finetune_families import FAMILIES
from finetune_families import FIRST_BIN_ID
from finetune_families import prompt
import numpy as np
import pytest
import torch

from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.model_parts import part_of_parameters
from vla_policy_node.training.finetune.objective import AnswerModel

ACTIONS = AddedTokens(first_id=FIRST_BIN_ID)
# Prompts of different lengths and numbers of tiles, so that the batch is padded in every way.
PROMPTS = ((3, 1), (9, 2), (5, 3), (4, 1))


def example(inputs, answer):
    nothing = np.full(len(answer), -1)
    return Example(kind='robot', asked='', inputs=inputs, answer=np.array(answer), bins=nothing,
                   dimensions=nothing, wanted=np.zeros((1, 7)))


@pytest.fixture(scope='module', params=list(FAMILIES))
def family(request):
    return request.param, build(request.param)


def losses(model, examples):
    batch = Collator(pad_id=0, model_type=model.config.model_type)(examples)
    with torch.no_grad():
        return batch, AnswerModel(model, ACTIONS.bin_token_ids)(
            batch.inputs, batch.rows, batch.columns, batch.labels, batch.bins)


def test_a_decoded_action_is_the_likeliest_label_at_every_token(family):
    name, model = family
    decoder = ConstrainedDecoder(model, ACTIONS)
    examples = []
    for seed, (words, tiles) in enumerate(PROMPTS):
        inputs = prompt(name, seed, words, tiles)
        examples.append(example(inputs, decoder.decode(inputs).token_ids))
    _, found = losses(model, examples)
    decoded = [[int(i) - FIRST_BIN_ID for i in one.answer] for one in examples]
    assert found.likeliest_bins.reshape(-1, 7).tolist() == decoded
    assert len({tuple(bins) for bins in decoded}) == 4, 'the prompts hardly matter: a weak test'


def test_padding_and_neighbours_in_the_batch_change_no_loss(family):
    name, model = family
    examples = [example(prompt(name, seed, words, tiles), [100 + seed, 180, 2][:2 + seed % 2])
                for seed, (words, tiles) in enumerate(PROMPTS)]
    _, together = losses(model, examples)
    alone = torch.cat([losses(model, [one])[1].losses for one in examples])
    torch.testing.assert_close(together.losses, alone, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_models_own_forward_at_the_answer(family):
    name, model = family
    batch, found = losses(model, [example(prompt(name, 0), [120, 130, 2])])
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    wanted = torch.nn.functional.cross_entropy(
        logits[0, -3:].float(), torch.tensor([120, 130, 2]), reduction='none')
    torch.testing.assert_close(found.losses, wanted, rtol=1e-4, atol=1e-4)


def test_every_weight_belongs_to_a_part(family):
    _, model = family
    parts = set(part_of_parameters(model).values())
    assert {'vision', 'embeddings', 'language'} <= parts
    # Qwen's projector is a part of its vision tower.
    assert ('projector' in parts) or type(model).__name__.startswith('Qwen')
