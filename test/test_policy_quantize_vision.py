"""Vision towers and projectors in 4 and 8 bit compute what their rounded weights say."""

import copy
from pathlib import Path

import bitsandbytes
from finetune_families import build
from finetune_families import FAMILIES
from finetune_families import prompt
import numpy as np
from openvla_folders import save_original
import pytest
import torch

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy.cpu_linear import use_cpu_kernels
from vla_policy_node.policy.loading import load_model
from vla_policy_node.policy.loading import read_model_config
from vla_policy_node.policy.quantization import bitsandbytes_config
from vla_policy_node.policy.quantization import check_quantized
from vla_policy_node.policy.quantization import is_quantized
from vla_policy_node.policy.quantization import plan_quantization
from vla_policy_node.policy.weights import load_weights

pytestmark = pytest.mark.slow


def wide_model(name, **vision):
    """Return a family's random model with towers of a width that the 4-bit CPU kernel takes."""
    model = build(name)
    config = model.config
    if name == 'openvla':
        for tower in config.vision_towers:
            tower.update(dim=64, hidden=128)
    else:
        for field, value in {'hidden_size': 64, 'intermediate_size': 128, **vision}.items():
            setattr(config.vision_config, field, value)
    # Larger weights make so small a language model chaotic: any rounding changes everything.
    config.get_text_config().initializer_range = 0.05
    torch.manual_seed(0)
    return type(model)(config).eval()


def quantised(folder: Path, quantization: str, dtype=torch.float32):
    """Return (model, plan) with everything quantised that can be."""
    config = read_model_config(folder)
    plan = plan_quantization(config, quantization, 'cpu', vision=True)
    model = load_weights(folder, config, 'cpu', {
        'dtype': dtype, 'quantization_config': bitsandbytes_config(plan, quantization, dtype)})
    assert check_quantized(model, plan, quantization) == 14
    use_cpu_kernels(model)
    return model, plan


def last_logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits[0, -1].float()


def similarity(one, other):
    return torch.cosine_similarity(one, other, dim=0).item()


@pytest.mark.parametrize('name', FAMILIES)
class TestFamilies:
    def test_nf4_computes_with_the_rounded_weights(self, name, tmp_path):
        whole = wide_model(name)
        whole.save_pretrained(tmp_path)
        model, plan = quantised(tmp_path, 'nf4')
        assert len(plan.vision) >= 12 and plan.refused_vision == ()
        rounded = copy.deepcopy(whole)
        # Before the first forward, which packs the weights.
        for path, layer in model.named_modules():
            if is_quantized(layer):
                rounded.get_submodule(path).weight.data = bitsandbytes.functional.dequantize_4bit(
                    layer.weight.data, layer.weight.quant_state).float()
        for seed in range(2):
            inputs = prompt(name, seed)
            assert similarity(
                last_logits(model, inputs), last_logits(rounded, inputs)) > 0.999

    def test_int8_computes_about_the_same_as_the_whole_model(self, name, tmp_path):
        whole = wide_model(name)
        whole.save_pretrained(tmp_path)
        model, _ = quantised(tmp_path, 'int8')
        inputs = prompt(name, 0)
        assert similarity(last_logits(model, inputs), last_logits(whole, inputs)) > 0.995


def test_attention_of_torch_which_only_reads_the_weights_stays_as_it_is(tmp_path):
    wide_model('llava', vision_use_head=True).save_pretrained(tmp_path)
    model, plan = quantised(tmp_path, 'nf4', torch.bfloat16)
    assert plan.refused_vision == ('model.vision_tower.head.attention.out_proj',)
    inputs = prompt('llava', 0)
    pixels = inputs.pop('pixel_values').bfloat16()
    assert last_logits(model, {**inputs, 'pixel_values': pixels}).isfinite().all()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return OpenVLA with towers of which one has widths that the 4-bit CPU kernel refuses."""
    return save_original(tmp_path_factory.mktemp('fused'), 'dinov2', 'siglip')


class TestOpenVLA:
    def test_layers_of_other_shapes_stay_and_are_named(self, folder):
        loaded = load_model(folder, quantize_vision=True)
        towers = loaded.model.vision_backbone
        assert loaded.quantized_layers == 2 * 7 and loaded.refused_layers == 0
        # Two blocks of four layers, and the second and third of the projector.
        assert loaded.quantized_vision_layers == 2 * 4 + 2
        assert towers.featurizer.blocks[0].attn.qkv.weight.dtype == torch.uint8
        assert towers.fused_featurizer.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
        assert 'vision_backbone.fused_featurizer.blocks.0.attn.qkv' in loaded.kept_layers
        assert 'projector.fc1' in loaded.kept_layers

    @pytest.mark.parametrize('quantization', ['nf4', 'int8'])
    def test_it_acts(self, folder, quantization):
        policy = load_policy(folder, quantization=quantization, quantize_vision=True)
        rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        chunk = policy.infer(Observation(images={'primary': rgb}, instruction='pick it up'))
        assert chunk.token_ids.shape == (1, 7) and np.isfinite(chunk.actions).all()

    def test_int8_takes_every_shape(self, folder):
        loaded = load_model(folder, quantization='int8', quantize_vision=True)
        assert (loaded.quantized_vision_layers, loaded.kept_layers) == (2 * 2 * 4 + 3, ())

    def test_unless_asked_for_vision_and_projector_stay(self, folder):
        loaded = load_model(folder)
        assert (loaded.quantized_vision_layers, loaded.kept_layers) == (0, ())
        assert not any(is_quantized(m) for m in loaded.model.vision_backbone.modules())


def test_a_transposed_input_gives_what_the_same_numbers_in_a_row_give(tmp_path):
    wide_model('llava').save_pretrained(tmp_path)
    model, _ = quantised(tmp_path, 'nf4')
    layer = model.model.multi_modal_projector.linear_1
    x = torch.randn(1, 64, 16)
    with torch.no_grad():
        torch.testing.assert_close(layer(x.transpose(1, 2)), layer(x.transpose(1, 2).contiguous()))
