"""
One prompt in a model: what it takes besides pixels, and its cache, kept from frame to frame.

transformers prepares positions, masks and the like of any model family, in a few hundred lines of
Python per token. They are the same for every frame of a prompt, so they are asked for once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from vla_policy_node.policy.caches import build_cache
from vla_policy_node.policy.caches import rewind
from vla_policy_node.policy.caches import wipe
from vla_policy_node.policy.last_layer import LastLayer
from vla_policy_node.policy.output_head import CutHead
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import PromptLengthError

# Caches of about the same length are shared; this many places more cost little.
_BUCKET = 64

Inputs = Mapping[str, torch.Tensor]


def prompt_key(inputs: Inputs) -> tuple:
    """Return what makes inputs those of the same prompt: all but the values of pixels."""
    return tuple(
        (name, tuple(value.shape), value.dtype,
         None if value.is_floating_point() else value.cpu().numpy().tobytes())
        for name, value in inputs.items())


class CacheShelf:
    """The caches of one model, one per length; at most one sequence is decoded at a time."""

    def __init__(self, model: nn.Module, fixed_shapes: bool) -> None:
        self._model = model
        self._fixed_shapes = fixed_shapes
        self._caches: dict[int, Any] = {}

    def take(self, n_prompt: int, n_new: int) -> Any:
        """Return a cache for a prompt and what follows; PromptLengthError without room."""
        wanted = n_prompt + n_new
        config = self._model.config.get_text_config(decoder=True)
        room = getattr(config, 'max_position_embeddings', None) or wanted
        if wanted > room:
            raise PromptLengthError(
                f'expected a prompt and an action of at most {room} tokens, which is what the '
                f'model was made for, found {n_prompt} + {n_new}; shorten the instruction, or '
                'use fewer cameras')
        capacity = -(-wanted // _BUCKET) * _BUCKET
        if capacity not in self._caches:
            self._caches[capacity] = build_cache(self._model, capacity, self._fixed_shapes)
        return self._caches[capacity]


class PromptState:
    """
    Runs one prompt with new pixels, then tokens after it.

    Nothing but `__init__` and the first use of a place asks a GPU for a value.
    """

    def __init__(
        self, model: nn.Module, head: CutHead, inputs: Inputs, caches: CacheShelf, n_new: int,
    ) -> None:
        """Let transformers prepare a prompt; n_new: how many tokens may follow it."""
        self._model = model
        self._head = head
        self._last_layer = LastLayer(model)
        # A picture may take places in the language model without having ids in the prompt.
        n_prompt = inputs['input_ids'].shape[1] + getattr(model.config, 'image_columns', 0)
        self._cache = caches.take(n_prompt, n_new)
        rewind(self._cache)
        words = {name: value for name, value in inputs.items() if not value.is_floating_point()}
        config = GenerationConfig(max_new_tokens=n_new, do_sample=False, pad_token_id=0)
        self._ids, self._kwargs = model.generate(
            **words, past_key_values=self._cache, generation_config=config,
            custom_generate=_give_back)
        # Pictures were not given to transformers above, so it has encoded none.
        self._kwargs.pop('mm_encoder_outputs', None)
        self._is_padded = not bool((inputs['attention_mask'] == 1).all())
        self._prompt = {**inputs, **self._prepare(self._ids, self._kwargs, first=True)}
        self._kwargs_after = [self._kwargs]
        self._steps: dict[tuple[int, int], dict[str, Any]] = {}

    def prefill(self, pixels: Inputs) -> torch.Tensor:
        """Forget what was there and run the prompt; return the (C,) logits of what follows."""
        rewind(self._cache)
        with self._last_layer.for_last_token():
            return self._run({**self._prompt, **pixels})

    def advance(self, token_ids: torch.Tensor, n_before: int) -> torch.Tensor:
        """
        Run further tokens; return the (C,) logits of what follows.

        :param token_ids: (n,) int64 on the model's device.
        :param n_before: how many came after the prompt before these.
        """
        place = n_before, len(token_ids)
        if place not in self._steps:
            self._steps[place] = self._prepare_step(*place)
        return self._run({**self._steps[place], 'input_ids': token_ids[None]})

    def wipe(self) -> None:
        """Clear the cache after a failure."""
        wipe(self._cache)

    def _run(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        logits = self._model(**inputs, return_dict=True).logits[0, -1]
        if len(logits) != self._head.width:
            raise DecodeError(
                f'expected {self._head.width} logits from the output head, found {len(logits)}; '
                'this model does not use its output embeddings as its head')
        return logits

    def _prepare_step(self, n_before: int, count: int) -> dict[str, Any]:
        """Let transformers prepare a place; the cache must hold all that comes before it."""
        while len(self._kwargs_after) <= n_before + count:
            self._kwargs_after.append(self._model._update_model_kwargs_for_generation(
                {}, dict(self._kwargs_after[-1]), num_new_tokens=1))
        ids = torch.cat([self._ids, self._ids.new_zeros(1, n_before + count)], dim=1)
        return self._prepare(
            ids, self._kwargs_after[n_before + count], next_sequence_length=count)

    def _prepare(
        self, ids: torch.Tensor, kwargs: Mapping[str, Any], first: bool = False, **more: Any,
    ) -> dict[str, Any]:
        prepared = self._model.prepare_inputs_for_generation(
            ids, is_first_iteration=first, **more, **kwargs)
        if not self._is_padded:
            # Models make their own masks then; some do not take those prepared for graphs.
            prepared['attention_mask'] = None
        return prepared


def _give_back(
    model: nn.Module, input_ids: torch.Tensor, *, generation_config: Any, logits_processor: Any,
    stopping_criteria: Any, synced_gpus: bool = False, **model_kwargs: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Take the place of transformers' loop, and return what it would begin with."""
    del model, generation_config, logits_processor, stopping_criteria, synced_gpus
    return input_ids, model_kwargs
