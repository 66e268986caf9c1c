"""
Linear layers on a CPU, the same bits sooner: kernels called directly, weights packed once.

In bfloat16, torch 2.13 lays out a layer's weights anew at every call. Laid out once, a product
takes 0.85 to 0.95 of the time for the 280 tokens of a prompt and 0.55 to 0.7 for a single one
(AVX-512, layers of 192 to 4096). In 4 bits, bitsandbytes 0.50 asks some questions before every
product and reads one of the answers from a tensor, which takes 45 us where the kernel itself
takes 5 (192 x 192) to 20 (768 x 768). Its kernel does not look at strides either: of a transposed
input, as a projector gets from a vision tower without a final norm, it makes wrong numbers.
"""

from collections.abc import Callable
import ctypes
from functools import cache

import torch
from torch import nn
from torch.nn import functional


def use_cpu_kernels(model: nn.Module) -> None:
    """
    Change how the linear layers of a model on a CPU compute, all but the output head.

    Afterwards weights in bfloat16 cannot be read any more, and the model cannot be trained.
    """
    head = model.get_output_embeddings()
    for module in model.modules():
        # By name: layers of 8 bits have a kernel of another kind.
        if type(module).__name__ == 'Linear4bit':
            module.forward = _UndecidedProduct(module)
        elif type(module) is nn.Linear and module is not head and _can_be_packed(module):
            _pack(module)


class _PackedProduct:
    """A layer's product with weights in the order in which oneDNN reads them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        # No batch size: what is packed for none is the quickest for one token, and for many.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = bias
        self._kernel = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) -> (..., N)."""
        if self._bias is not None and not x.is_contiguous():
            # torch rounds before it adds the bias then.
            return self._kernel(x, self.weight, None, 'none', [], '').add_(self._bias)
        return self._kernel(x, self.weight, self._bias, 'none', [], '')


def _can_be_packed(layer: nn.Linear) -> bool:
    return layer.weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _pack(layer: nn.Linear) -> None:
    """Pack a layer's weights in their place, if they still give the same numbers."""
    x = torch.linspace(-1.0, 1.0, layer.in_features, dtype=layer.weight.dtype)[None]
    with torch.inference_mode(False), torch.no_grad():
        product = _PackedProduct(layer.weight, layer.bias)
        if torch.equal(product(x), functional.linear(x, layer.weight, layer.bias)):
            layer.weight = nn.Parameter(product.weight, requires_grad=False)
            layer.forward = product


class _UndecidedProduct:
    """Computes as bitsandbytes does, and directly from then on if that gives the same numbers."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._forward = layer.forward

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) -> (..., N)."""
        x = x.contiguous()
        # The first forward packs the weights.
        wanted = self._forward(x)
        if _may_be_direct(self._layer, x):
            product = _FourBitProduct(self._layer)
            if torch.equal(product(x), wanted):
                self._layer.forward = product
        return wanted


class _FourBitProduct:
    """The product of one layer's packed 4-bit weights, kept alive here, with bfloat16 inputs."""

    def __init__(self, layer: nn.Module) -> None:
        state = layer.weight.quant_state
        self._kept = layer.weight.data, state.absmax
        self._weight, self._scales = (_address(tensor) for tensor in self._kept)
        self._bias = layer.bias
        self._width_out, self._width_in = layer.out_features, layer.in_features
        self._n, self._k, self._block = (
            ctypes.c_int64(value) for value in (*state.shape, state.blocksize))
        self._kernel = four_bit_kernel()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) bfloat16 -> (..., N) bfloat16."""
        x = x.contiguous()
        out = torch.empty((*x.shape[:-1], self._width_out), dtype=torch.bfloat16)
        rows = ctypes.c_int64(x.numel() // self._width_in)
        self._kernel(rows, self._n, self._k, _address(x), self._weight, self._scales,
                     _address(out), self._block, self._k, self._n)
        return out if self._bias is None else out.add_(self._bias)


def _may_be_direct(layer: nn.Module, x: torch.Tensor) -> bool:
    state = layer.weight.quant_state
    return (
        four_bit_kernel() is not None and getattr(state, 'packing_format_for_cpu', False)
        and state.quant_type == 'nf4' and state.absmax.dtype == torch.bfloat16
        and x.dtype == torch.bfloat16 == layer.compute_dtype
        and (layer.bias is None or layer.bias.dtype == torch.bfloat16))


@cache
def four_bit_kernel() -> Callable[..., None] | None:
    """Return the kernel for 4 bits, where this CPU and this bitsandbytes have it."""
    # A model that is not quantised must not cost this import.
    from bitsandbytes.cextension import lib

    return getattr(lib, 'gemv_4bit_inference_cpu_nf4_bf16', None)


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
