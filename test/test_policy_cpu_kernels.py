"""What decoding computes in another way on a CPU, and that it is the same."""

from types import SimpleNamespace

import bitsandbytes
import finetune_families as families
import pytest
import torch
from torch.nn import functional

from vla_policy_node.policy import cpu_attention
from vla_policy_node.policy.cpu_attention import SingleTokenAttention
from vla_policy_node.policy.packed_linear import call_directly
from vla_policy_node.policy.packed_linear import kernel
from vla_policy_node.policy.parts import language_model


def attend(query, key, value, mask=None):
    """Attend as a layer of a language model does; (B, heads, T, D) -> (B, T, heads, D)."""
    module = SimpleNamespace(
        is_causal=True, num_key_value_groups=query.shape[1] // key.shape[1], training=False)
    return cpu_attention._attend(module, query, key, value, mask, scaling=0.25)[0]


def states(heads, length, dtype=torch.bfloat16):
    return torch.randn(1, heads, length, 16, generator=torch.manual_seed(heads + length)).to(dtype)


def exactly(query, key, value, mask=None):
    return functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), mask, scale=0.25,
        enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
def test_a_single_token_attends_as_exactly_as_its_dtype_can_hold(kv_heads):
    query, key, value = states(4, 1), states(kv_heads, 50), states(kv_heads, 50)
    assert torch.equal(attend(query, key, value), exactly(query, key, value).bfloat16())


@pytest.mark.parametrize('dtype', [torch.bool, torch.bfloat16])
def test_a_single_token_does_not_see_what_a_mask_hides(dtype):
    query, key, value = states(4, 1), states(4, 50), states(4, 50)
    seen = torch.arange(50)[None, None, None] >= 10
    mask = seen if dtype == torch.bool else torch.zeros(1, 1, 1, 50, dtype=dtype).masked_fill(
        ~seen, torch.finfo(dtype).min)
    assert torch.equal(attend(query, key, value, mask),
                       attend(query, key[:, :, 10:], value[:, :, 10:]))


def test_several_tokens_attend_causally_as_before():
    query, key, value = (states(heads, 8) for heads in (4, 2, 2))
    seen = torch.ones(8, 8, dtype=torch.bool).tril()
    assert torch.allclose(attend(query, key, value).double(),
                          exactly(query, key, value, seen), atol=0.01)


@pytest.mark.parametrize('name', families.FAMILIES)
def test_a_model_attends_as_it_did_once_decoding_is_over(name):
    model = families.build(name)
    before = {id(m.config): m.config._attn_implementation for m in model.modules()
              if hasattr(m, 'config')}
    with pytest.raises(ZeroDivisionError), SingleTokenAttention(model).in_use():
        found = language_model(model).layers[0].self_attn.config._attn_implementation
        # Gemma 2 caps its logits, which torch's kernels cannot do.
        assert found == ('eager' if name == 'paligemma2' else cpu_attention._NAME)
        raise ZeroDivisionError
    assert before == {id(m.config): m.config._attn_implementation for m in model.modules()
                      if hasattr(m, 'config')}


def packed(bias=False, dtype=torch.bfloat16):
    """Return (layer as bitsandbytes has it, the same called directly)."""
    torch.manual_seed(3)
    layers = []
    for weight, offset in [(torch.randn(64, 128), torch.randn(64))] * 2:
        layer = bitsandbytes.nn.Linear4bit(
            128, 64, bias=bias, compute_dtype=dtype, quant_type='nf4')
        layer.weight = bitsandbytes.nn.Params4bit(weight.clone(), quant_type='nf4').to('cpu')
        if bias:
            layer.bias.data = offset.to(dtype)
        layers.append(layer.eval())
    call_directly(layers[1])
    return layers


needs_kernel = pytest.mark.skipif(kernel() is None, reason='this CPU has no packed 4-bit kernel')


@needs_kernel
@pytest.mark.parametrize('bias', [False, True])
def test_a_layer_that_is_called_directly_gives_the_same_bits(bias):
    theirs, ours = packed(bias)
    with torch.inference_mode():
        for shape in [(1, 7, 128), (1, 1, 128), (128,), (3, 2, 128), (1, 40, 128)]:
            x = torch.randn(shape).bfloat16()
            assert torch.equal(ours(x), theirs(x))
    assert type(ours.forward).__name__ == '_DirectProduct'


@needs_kernel
@pytest.mark.parametrize('calls', [1, 2])
def test_an_input_that_does_not_lie_row_by_row_gives_the_same_numbers(calls):
    _, ours = packed()
    x = torch.randn(1, 128, 9).bfloat16().transpose(1, 2)
    with torch.inference_mode():
        found = [ours(x) for _ in range(calls)]
        assert torch.equal(found[-1], ours(x.contiguous()))


@needs_kernel
def test_other_dtypes_stay_with_the_library():
    theirs, ours = packed(dtype=torch.float32)
    x = torch.randn(1, 3, 128)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))
    assert type(ours.forward).__name__ == '_Undecided'


@needs_kernel
def test_a_kernel_that_answers_otherwise_than_the_library_is_not_used(monkeypatch):
    theirs, ours = packed()
    monkeypatch.setattr('vla_policy_node.policy.packed_linear.kernel', lambda: lambda *_: None)
    x = torch.randn(1, 3, 128).bfloat16()
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))
    assert type(ours.forward).__name__ == '_Undecided'
