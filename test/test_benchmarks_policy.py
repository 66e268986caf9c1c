"""The benchmark of a policy: what it builds, counts and compares."""

from io import StringIO
import json
from pathlib import Path
import sys

import pytest
from rich.console import Console
import torch
from transformers import AutoModelForImageTextToText
import typer

sys.path.append(str(Path(__file__).resolve().parents[1] / 'benchmarks'))

from masked_generate import agreement
from masked_generate import MaskedGenerate
from part_times import count_flop
from part_times import PartTimer
from part_times import step_bytes
import policy
from policy_cases import open_case
from policy_cases import random_frames
from policy_result import rates
from policy_result import show
from policy_result import speedup
from random_models import build
from random_models import openvla7b
from random_models import tiny

from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.parts import language_model

pytestmark = pytest.mark.slow

PROMPT = 70  # 64 of them are the picture.


@pytest.fixture(scope='module')
def case():
    return open_case('tiny', '', 'cpu', 'float32', 'none', PROMPT)


@pytest.fixture(scope='module')
def decoder(case):
    return ConstrainedDecoder(case.model, case.tokenizer)


@pytest.fixture(scope='module')
def inputs(case):
    return case.preprocess(random_frames(1, 1)[0])


def test_only_the_language_model_of_a_random_model_is_quantised_and_nothing_stays_empty():
    model = build(tiny().config, 'cpu', torch.bfloat16, 'nf4')
    quantised = [name for name, module in model.named_modules()
                 if type(module).__name__ == 'Linear4bit']
    assert len(quantised) == 4 * 7
    assert all('language_model.layers' in name for name in quantised)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_the_seed_gives_the_same_weights_whatever_they_are_quantised_to():
    plain, quantised = (
        build(tiny().config, 'cpu', torch.bfloat16, name, seed=3) for name in ('none', 'nf4'))
    name = 'model.language_model.layers.2.mlp.down_proj'
    layer = quantised.get_submodule(name)
    hidden = torch.randn(1, layer.in_features, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted, found = plain.get_submodule(name)(hidden), layer(hidden)
    assert torch.equal(plain.get_output_embeddings().weight,
                       quantised.get_output_embeddings().weight)
    assert torch.cosine_similarity(wanted.float(), found.float()).item() > 0.98


def test_openvla_has_its_real_shapes():
    with torch.device('meta'):
        model = AutoModelForImageTextToText.from_config(openvla7b().config)
    layers = language_model(model).layers
    assert sum(module.weight.numel() for module in layers.modules()
               if isinstance(module, torch.nn.Linear)) == 6_476_005_376
    assert model.get_output_embeddings().weight.shape == (32064, 4096)
    towers = model.vision_backbone.children()
    assert [(tower.pos_embed.shape[1], len(tower.blocks)) for tower in towers] == [
        (256, 23), (256, 26)]


def test_a_random_prompt_takes_the_positions_that_were_asked_for(inputs):
    assert inputs['input_ids'].shape == (1, PROMPT)
    assert inputs['pixel_values'].shape == (1, 3, 96, 96)


def test_a_prompt_shorter_than_its_picture_is_refused():
    with pytest.raises(typer.BadParameter, match='more than 64 prompt tokens.*found 64'):
        open_case('tiny', '', 'cpu', 'float32', 'none', 64)


def test_masked_generate_gives_the_tokens_of_constrained_decoding(case, decoder):
    frames = map(case.preprocess, random_frames(4, 1))
    count = agreement(frames, lambda one: decoder.decode(one).token_ids.tolist(),
                      MaskedGenerate(case.model, case.tokenizer))
    assert count['same'] == count['frames'] == 4
    assert count['distinct'] > 1


def test_agreement_counts_the_frames_with_other_tokens():
    count = agreement([1, 2, 3], lambda one: [one], lambda one: [min(one, 2)])
    assert count == {'frames': 3, 'same': 2, 'distinct': 3}


def test_the_parts_of_a_decoding_add_up_to_all_of_it(case, decoder, inputs):
    ms = PartTimer(case.model).decode(decoder, inputs)
    steps = [ms[f'decode step {place}'] for place in range(1, 7)]
    assert 'decode step 7' not in ms
    assert min(ms['vision'], ms['prefill'], *steps) > 0.0
    assert ms['rest'] > 0.0
    assert ms['all parts'] > ms['vision'] + ms['prefill'] + sum(steps) + 7 * 0.5 * ms['head, cut']


def test_timing_and_counting_leave_no_hooks_behind(case, decoder, inputs):
    def hooks():
        return [len(module._forward_hooks) + len(module._forward_pre_hooks)
                for module in case.model.modules()]

    before = hooks()
    PartTimer(case.model).decode(decoder, inputs)
    count_flop(case.model, decoder, inputs)
    assert hooks() == before


def test_operations_are_two_per_weight_and_token_and_attention_in_full(case, decoder, inputs):
    layer = 4 * 192 * 192 + 2 * 192 * 768
    patches = 2 * 64 * 192 * (3 * 12 * 12)
    vision = 3 * (2 * 64 * layer + 4 * 64 * 64 * 192) + patches + 2 * 64 * 2 * 192 * 192
    attention, mlp = 4 * 192 * 192, 3 * 192 * 512
    prefill = 4 * (2 * PROMPT * attention + 4 * PROMPT * PROMPT * 192)
    # The last layer's MLP is computed for the last token only.
    prefill += 2 * (3 * PROMPT + 1) * mlp
    assert count_flop(case.model, decoder, inputs) == {'vision': vision, 'prefill': prefill}


def test_a_step_reads_the_language_model_and_the_keys_and_values(case):
    weights = 4 * (4 * 192 * 192 + 3 * 192 * 512 + 2 * 192) + 192
    per_position = 2 * 4 * 192
    rotary = step_bytes(case.model, 0) - 4 * weights
    assert 0 < rotary < 1000
    assert step_bytes(case.model, 10) - step_bytes(case.model, 0) == 10 * 4 * per_position


def test_rates_are_work_per_time_and_their_share_of_the_peak():
    ms = {name: {'p50': value} for name, value in {
        'vision': 10.0, 'prefill': 20.0, 'decode step': 2.0, 'decode step 1': 2.0,
        'decode step 2': 2.0, 'first logits': 40.0, 'further tokens': 8.0}.items()}
    work = {'vision_flop': 1e9, 'prefill_flop': 3e9, 'step_bytes': 2e7}
    found = rates(ms, work, {'tflop_per_s': 0.2, 'gb_per_s': 20.0})
    assert found['vision'] == pytest.approx({'tflop_per_s': 0.1, 'share_of_peak': 0.5})
    assert found['prefill'] == pytest.approx({'tflop_per_s': 0.15, 'share_of_peak': 0.75})
    assert found['first logits']['tflop_per_s'] == pytest.approx(0.1)
    assert found['decode step'] == pytest.approx({'gb_per_s': 10.0, 'share_of_peak': 0.5})
    assert found['further tokens']['gb_per_s'] == pytest.approx(5.0)


def test_the_speedup_is_theirs_by_ours():
    found = speedup([20.0, 30.0, 40.0], [10.0, 10.0, 20.0])
    assert found == pytest.approx({'of medians': 3.0, 'p5': 2.0, 'p50': 2.0, 'p95': 2.9})


def test_a_run_from_end_to_end_writes_json_and_a_table_of_at_most_100_columns(monkeypatch):
    monkeypatch.setattr(
        policy, 'measure_peaks', lambda *_: {'tflop_per_s': 1.0, 'gb_per_s': 100.0})
    result = policy.measure(policy.Options(
        case='tiny', quantization='nf4', rounds=2, frames=2, prompt_tokens=PROMPT,
        against_bf16=True))
    result = json.loads(json.dumps(result))
    assert set(result['speedup']) == {'generate', 'generate, bfloat16'}
    assert result['prompt_positions'] == PROMPT
    assert result['action_tokens'] == 7
    assert result['parameters'] == 3_398_592
    assert result['memory_bytes']['weights of language_quantized'] > 0
    text = StringIO()
    show(result, Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert 'ours is' in text.getvalue()
