"""Linear layers on a CPU give the same bits as those of torch and bitsandbytes."""

import bitsandbytes
import pytest
import torch

from vla_policy_node.policy import cpu_linear
from vla_policy_node.policy.cpu_linear import four_bit_kernel
from vla_policy_node.policy.cpu_linear import use_cpu_kernels


class Model(torch.nn.Module):
    """One layer and an output head."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, torch.nn.Linear(64, 64).bfloat16()

    def get_output_embeddings(self):
        return self.head


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason='this CPU has no bfloat16')
class TestBfloat16:
    @pytest.mark.parametrize('bias', [False, True])
    @pytest.mark.parametrize('shape', [(1, 1, 72), (1, 40, 72), (3, 2, 72), (72,)])
    def test_packed_weights_give_the_same_bits(self, bias, shape):
        layer = torch.nn.Linear(72, 90, bias=bias).bfloat16()
        x = torch.randn(shape).bfloat16()
        with torch.inference_mode():
            wanted = layer(x)
            use_cpu_kernels(Model(layer))
            assert torch.equal(layer(x), wanted)
        assert layer.weight.is_mkldnn and layer.weight.shape == (90, 72)

    def test_inputs_need_not_lie_row_by_row(self):
        layer = torch.nn.Linear(72, 90).bfloat16()
        x = torch.randn(1, 72, 9).bfloat16().transpose(1, 2)
        with torch.inference_mode():
            wanted = layer(x)
            use_cpu_kernels(Model(layer))
            assert torch.equal(layer(x), wanted)

    def test_the_head_and_other_dtypes_stay_as_they_are(self):
        model = Model(torch.nn.Linear(72, 90))
        use_cpu_kernels(model)
        assert not model.head.weight.is_mkldnn and not model.layer.weight.is_mkldnn

    def test_weights_that_would_give_other_numbers_once_packed_are_left_alone(self, monkeypatch):
        monkeypatch.setattr(cpu_linear._PackedProduct, '__call__',
                            lambda self, x: torch.zeros(1, 90, dtype=torch.bfloat16))
        layer = torch.nn.Linear(72, 90).bfloat16()
        use_cpu_kernels(Model(layer))
        assert not layer.weight.is_mkldnn and 'forward' not in vars(layer)


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
    use_cpu_kernels(Model(layers[1]))
    return layers


needs_kernel = pytest.mark.skipif(
    four_bit_kernel() is None, reason='this CPU has no packed 4-bit kernel')


@needs_kernel
@pytest.mark.parametrize('bias', [False, True])
def test_a_layer_that_is_called_directly_gives_the_same_bits(bias):
    theirs, ours = packed(bias)
    with torch.inference_mode():
        for shape in [(1, 7, 128), (1, 1, 128), (128,), (3, 2, 128), (1, 40, 128)]:
            x = torch.randn(shape).bfloat16()
            assert torch.equal(ours(x), theirs(x))
    assert type(ours.forward).__name__ == '_FourBitProduct'


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
    assert type(ours.forward).__name__ == '_UndecidedProduct'


@needs_kernel
def test_a_kernel_that_answers_otherwise_than_the_library_is_not_used(monkeypatch):
    theirs, ours = packed()
    monkeypatch.setattr(cpu_linear, 'four_bit_kernel', lambda: lambda *_: None)
    x = torch.randn(1, 3, 128).bfloat16()
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))
    assert type(ours.forward).__name__ == '_UndecidedProduct'
