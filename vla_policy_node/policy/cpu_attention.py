"""
Attention of one token on a CPU, computed in float32.

torch's CPU kernel takes 2 to 6 times as long in bfloat16 as in float32 where a single token
attends (torch 2.13, AVX-512; heads of 64 and 128, 100 and 284 keys), casts included, and rounds
more. A decode step is nothing but single tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers import AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = 'sdpa_single_in_float32'
_HALVES = (torch.bfloat16, torch.float16)


class SingleTokenAttention:
    """Changes how a language model on a CPU attends while it is in use; elsewhere nothing."""

    def __init__(self, model: nn.Module) -> None:
        # Layers keep copies of the configuration that they ask how to attend.
        configs = {id(module.config): module.config for module in model.get_decoder().modules()
                   if hasattr(module, 'config')}
        self._configs = [
            config for config in configs.values()
            if model.device.type == 'cpu' and config._attn_implementation == 'sdpa']

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let single tokens attend in float32."""
        for config in self._configs:
            config._attn_implementation = _NAME
        try:
            yield
        finally:
            for config in self._configs:
                config._attn_implementation = 'sdpa'


def _attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, scaling: float | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' sdpa does; query: (B, heads, T, D) -> (B, T, heads, D)."""
    if query.shape[2] > 1 or query.dtype not in _HALVES:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    found = functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attention_mask, scale=scaling,
        enable_gqa=key.shape[1] < query.shape[1])
    return found.transpose(1, 2).to(query.dtype), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
