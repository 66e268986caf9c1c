"""
What CPUs compute faster in another way, to the same result.

Two kernels are slow on CPUs for short texts and pictures of few patches (torch 2.13, AVX-512 and
AMX): attention in bfloat16, which takes 3 to 10 times as long as in float32 up to about 128
tokens, nearly all of it in the backward pass; and the backward pass of the convolution that cuts a
picture into patches, which takes 10 times as long as that of the product of matrices it is.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers import AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = 'sdpa_short_in_float32'
# Beyond this bfloat16 wins where heads are wide (128), and soon after where they are narrow (32).
_SHORT = 128


def use_cpu_kernels(model: nn.Module) -> None:
    """Change how a model of transformers computes; weights and their names stay as they are."""
    config = model.config
    parts = {'': config, **{name: getattr(config, name) for name in config.sub_configs}}
    model.set_attn_implementation({
        name: _NAME for name, part in parts.items() if part._attn_implementation == 'sdpa'})
    for module in model.modules():
        if type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = PatchConv2d


class PatchConv2d(nn.Conv2d):
    """A convolution of patches side by side, as a product of matrices."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, D, H // h, W // w)."""
        height, width = self.kernel_size
        patches = pictures.unfold(2, height, height).unfold(3, width, width)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
        return functional.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _cuts_patches(conv: nn.Conv2d) -> bool:
    return (conv.stride == conv.kernel_size and conv.padding in ((0, 0), 'valid')
            and conv.dilation == (1, 1) and conv.groups == 1)


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' sdpa does; query: (B, heads, T, D)."""
    if query.dtype != torch.bfloat16 or key.shape[2] > _SHORT:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast('cpu', enabled=False):
        found, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return found.to(query.dtype), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
