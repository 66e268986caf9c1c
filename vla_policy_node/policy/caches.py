"""
Key-value caches that are allocated once per prompt length and written in place.

Two kinds, for the same models: on a CPU a layer hands out a view of what is written so far, which
costs neither a copy nor a mask; for CUDA graphs every tensor keeps its shape and address, and a
mask hides what is not written yet.
"""

from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers import DynamicCache
from transformers import StaticCache
from transformers.cache_utils import DynamicLayer
from transformers.cache_utils import StaticLayer


class GrowingLayer(DynamicLayer):
    """One layer's keys and values: a buffer for `capacity` tokens, seen as far as written."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for states of this shape, (B, heads, T, D)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = tuple(
            states.new_empty(*states.shape[:2], self._capacity, states.shape[-1])
            for states in (key_states, value_states))
        self.is_initialized = True
        self.rewind()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states (B, heads, T, D) and return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(2, start, end - start).copy_(states)
        self.keys, self.values = (buffer.narrow(2, 0, end) for buffer in self._buffers)
        return self.keys, self.values

    def rewind(self) -> None:
        """Forget all tokens; the memory stays."""
        self.keys, self.values = (buffer.narrow(2, 0, 0) for buffer in self._buffers)


def build_cache(model: nn.Module, capacity: int, fixed_shapes: bool) -> Cache:
    """
    Return an empty cache for one sequence of at most `capacity` tokens.

    :param fixed_shapes: every tensor keeps its shape and address, as CUDA graphs need.
    """
    config = model.config.get_text_config(decoder=True)
    if fixed_shapes:
        return StaticCache(config=config, max_cache_len=capacity)
    cache = DynamicCache(config=config)
    # Layers with a sliding window stay as they are: they hold little.
    cache.layers = [GrowingLayer(capacity) if type(layer) is DynamicLayer else layer
                    for layer in cache.layers]
    return cache


def rewind(cache: Cache) -> None:
    """
    Forget all tokens; what is written stays in memory, unseen.

    Nothing here asks a GPU for a value, so it may be part of a CUDA graph.
    """
    for layer in cache.layers:
        if not layer.is_initialized:
            continue
        if isinstance(layer, GrowingLayer):
            layer.rewind()
        elif isinstance(layer, StaticLayer):
            layer.cumulative_length.zero_()
            if hasattr(layer, 'cumulative_length_int'):
                layer.cumulative_length_int = 0
        else:
            layer.reset()


def wipe(cache: Cache) -> None:
    """Forget all tokens and overwrite them: a NaN behind a mask would still spoil the sums."""
    for layer in cache.layers:
        if isinstance(layer, StaticLayer):
            layer.reset()
    rewind(cache)
