"""On the same checkpoint, our OpenVLA and the original give the same numbers."""

import numpy as np
from openvla_folders import reference_cases
from openvla_folders import reference_weights
from openvla_folders import save_reference
from openvla_folders import split
import pytest
from safetensors.torch import save_file
import torch

from vla_policy_node.action_tokenizer import OverwrittenTokens
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.loading import load_model

EXACT = {'quantization': 'none', 'dtype': 'float32'}
CASES = reference_cases()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return save_reference(tmp_path_factory.mktemp('openvla'))


@pytest.fixture(scope='module')
def loaded(folder):
    return load_model(folder, **EXACT)


def inputs_of(loaded, case):
    prompt = loaded.config.prompt.action.replace('{instruction}', str(case['instruction']).lower())
    return loaded.processor(text=prompt, images=[case['image']])


@pytest.mark.parametrize('case', CASES, ids=lambda case: str(case['instruction']))
class TestOneCase:
    def test_ids_and_pixels_are_the_originals(self, loaded, case):
        inputs = inputs_of(loaded, case)
        assert inputs['input_ids'].tolist() == case['input_ids'].tolist()
        assert inputs['attention_mask'].tolist() == np.ones_like(case['input_ids']).tolist()
        np.testing.assert_allclose(inputs['pixel_values'], case['pixel_values'], atol=1e-6)

    def test_logits_after_the_prompt_are_the_originals(self, loaded, case):
        with torch.no_grad():
            logits = loaded.model(**inputs_of(loaded, case)).logits
        assert logits.shape[1] == case['input_ids'].shape[1]  # One column per id, patches none.
        np.testing.assert_allclose(logits[0, -1, 31744:32000], case['logits'], atol=1e-5)

    def test_tokens_and_actions_are_the_originals(self, folder, case):
        policy = load_policy(folder, **EXACT)
        chunk = policy.infer(Observation(
            images={'primary': case['image']}, instruction=str(case['instruction'])))
        assert chunk.token_ids[0].tolist() == case['tokens'].tolist()
        np.testing.assert_allclose(chunk.actions[0, :6], case['action'][:6], atol=1e-12)
        assert chunk.actions[0, 6] == np.clip(case['action'][6], 0.0, 1.0)


def test_shards_in_bfloat16_are_read(folder, tmp_path):
    for path in folder.glob('*.json'):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file({name: value.bfloat16() for name, value in reference_weights().items()},
              tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    split(tmp_path)
    loaded = load_model(tmp_path, quantization='none', dtype='bfloat16')
    decoder = ConstrainedDecoder(loaded.model, OverwrittenTokens(vocab_size=32000))
    inputs = inputs_of(loaded, CASES[0])
    pixels = inputs.pop('pixel_values').bfloat16()
    tokens = decoder.decode({**inputs, 'pixel_values': pixels}).token_ids
    assert tokens.tolist() == CASES[0]['tokens'].tolist()


def test_one_step_at_a_time_gives_what_the_whole_sequence_gives(loaded):
    inputs = inputs_of(loaded, CASES[1])
    with torch.no_grad():
        whole = loaded.model(**inputs).logits[0, -1]
        first = {name: value[:, :-1] if value.dim() == 2 else value
                 for name, value in inputs.items()}
        cache = loaded.model(**first, use_cache=True).past_key_values
        last = loaded.model(input_ids=inputs['input_ids'][:, -1:], past_key_values=cache,
                            attention_mask=inputs['attention_mask'])
    torch.testing.assert_close(last.logits[0, -1], whole, rtol=1e-5, atol=1e-5)
