"""
Vision transformers up to their second to last block, with the names that OpenVLA's weights have.

DINOv2 with registers, SigLIP, CLIP and ImageNet's differ only in what the constructor is told.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla_policy_node.policy.openvla.configuration import TOWER_NAMES

_CHANNELS = 3


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS = {
    'gelu': functional.gelu,
    'gelu_tanh': lambda x: functional.gelu(x, approximate='tanh'),
    'quick_gelu': _quick_gelu,
}


class VisionBackbone(nn.Module):
    """One tower, or two whose features are laid side by side."""

    def __init__(self, towers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        for name, tower in zip(TOWER_NAMES, towers, strict=False):
            self.add_module(name, VisionTower(**tower))
        self.dim = sum(tower['dim'] for tower in towers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3 per tower, S, S) normalised pixels -> (B, patches, dim of all towers)."""
        towers = list(self.children())
        parts = pixels.split(_CHANNELS, dim=1)
        return torch.cat([tower(part) for tower, part in zip(towers, parts, strict=True)], dim=-1)


class VisionTower(nn.Module):
    """
    A vision transformer without its last block.

    size, patch: side in pixels. hidden: width of the MLPs. positions: of the patches alone, or
    with class token and registers, which then are placed before positions are added.
    """

    def __init__(
        self, *, size: int, patch: int, dim: int, blocks: int, heads: int, hidden: int,
        positions: int, class_token: bool, registers: int, layer_scale: bool, pre_norm: bool,
        patch_bias: bool, activation: str, epsilon: float,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(_CHANNELS, dim, patch, patch, bias=patch_bias)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.norm_pre = nn.LayerNorm(dim, eps=epsilon) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            VisionBlock(dim, heads, hidden, layer_scale, activation, epsilon)
            for _ in range(blocks))
        self._prefix = int(class_token) + registers
        self._prefix_has_positions = positions != (size // patch) ** 2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, size, size) -> (B, patches, dim)."""
        x = self.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
        if not self._prefix_has_positions:
            x = x + self.pos_embed
        prefix = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token)
                  if token is not None]
        x = torch.cat([*prefix, x], dim=1)
        if self._prefix_has_positions:
            x = x + self.pos_embed
        x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x)
        return x[:, self._prefix:]


class VisionBlock(nn.Module):
    """Attention and MLP, each after a norm and beside a residual."""

    def __init__(
        self, dim: int, heads: int, hidden: int, layer_scale: bool, activation: str,
        epsilon: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=epsilon)
        self.attn = VisionAttention(dim, heads)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=epsilon)
        self.mlp = VisionMLP(dim, hidden, activation)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionAttention(nn.Module):
    """Every patch looks at every other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self._heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        qkv = self.qkv(x).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    """Two layers and what is between them."""

    def __init__(self, dim: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self._activation = _ACTIVATIONS[activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(self._activation(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        return x * self.scale_factor
