"""
4-bit layers on a CPU: the packed kernel of bitsandbytes, called as directly as Python can.

bitsandbytes 0.50 asks some questions before every product and reads one of the answers from a
tensor. That takes 45 us of CPU time per layer and token where the kernel itself takes 5 (192 x
192) to 20 (768 x 768), and a decode step is a few dozen such products. Its kernel does not look at
strides either: of a transposed input, as a projector gets from a vision tower without a final
norm, it makes wrong numbers.
"""

from collections.abc import Callable
import ctypes
from functools import cache

import torch
from torch import nn


def call_directly(model: nn.Module) -> None:
    """Let the 4-bit layers of a model on a CPU spend their time in the kernel."""
    for module in model.modules():
        # By name: layers of 8 bits have a kernel of another kind.
        if type(module).__name__ == 'Linear4bit':
            module.forward = _Undecided(module)


class _Undecided:
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
            product = _DirectProduct(self._layer)
            if torch.equal(product(x), wanted):
                self._layer.forward = product
        return wanted


class _DirectProduct:
    """The product of one layer's packed weights, kept alive here, with bfloat16 inputs."""

    def __init__(self, layer: nn.Module) -> None:
        state = layer.weight.quant_state
        self._kept = layer.weight.data, state.absmax
        self._weight, self._scales = (_address(tensor) for tensor in self._kept)
        self._bias = layer.bias
        self._width_out, self._width_in = layer.out_features, layer.in_features
        self._n, self._k, self._block = (
            ctypes.c_int64(value) for value in (*state.shape, state.blocksize))
        self._kernel = kernel()

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
        kernel() is not None and getattr(state, 'packing_format_for_cpu', False)
        and state.quant_type == 'nf4' and state.absmax.dtype == torch.bfloat16
        and x.dtype == torch.bfloat16 == layer.compute_dtype
        and (layer.bias is None or layer.bias.dtype == torch.bfloat16))


@cache
def kernel() -> Callable[..., None] | None:
    """Return the kernel, where this CPU and this bitsandbytes have it."""
    # A model that is not quantised must not cost this import.
    from bitsandbytes.cextension import lib

    return getattr(lib, 'gemv_4bit_inference_cpu_nf4_bf16', None)


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
