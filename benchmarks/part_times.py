"""Times of a model's parts while it decodes, and how much work each of them does."""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from peaks import synchronise
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.choosing import Chooser
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.memory import measure_memory
from vla_policy_node.policy.parts import LANGUAGE
from vla_policy_node.policy.parts import language_model
from vla_policy_node.policy.parts import part_of_modules
from vla_policy_node.policy.parts import PROJECTOR
from vla_policy_node.policy.parts import VISION


class PartTimer:
    """
    Times parts of a model as they run, waiting for a GPU before and after each of them.

    Works with any model of transformers: vision tower and projector, language model, head.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: dict[str, list[float]] = {}
        self._start_s = 0.0

    def decode(self, decoder: ConstrainedDecoder, inputs: Mapping[str, Any]) -> dict[str, float]:
        """
        Decode once and return milliseconds: of every part, of one head call, of what is left.

        Decode steps are numbered from 1; without a number it is their median.
        """
        self._calls = {'vision': [], LANGUAGE: [], 'head': []}
        start_s = self._now()
        with self._listening():
            decoder.decode(inputs)
        whole_ms = 1e3 * (self._now() - start_s)
        vision, (prefill, *steps), heads = self._calls.values()
        rest = whole_ms - sum(vision) - prefill - sum(steps) - sum(heads)
        return {'vision': sum(vision), 'prefill': prefill, 'decode step': median(steps),
                **{f'decode step {place}': ms for place, ms in enumerate(steps, 1)},
                'head, cut': median(heads), 'rest': rest, 'all parts': whole_ms}

    @contextmanager
    def _listening(self) -> Iterator[None]:
        model = self._model
        modules = [('vision', module) for module in vision_modules(model)]
        modules += [(LANGUAGE, language_model(model)), ('head', model.get_output_embeddings())]
        hooks = []
        for name, module in modules:
            hooks += [module.register_forward_pre_hook(self._enter),
                      module.register_forward_hook(self._leaving(name))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, *_: Any) -> None:
        self._start_s = self._now()

    def _leaving(self, name: str) -> Any:
        def leave(*_: Any) -> None:
            self._calls[name].append(1e3 * (self._now() - self._start_s))
        return leave

    def _now(self) -> float:
        synchronise(self._model.device)
        return perf_counter()


def vision_modules(model: nn.Module) -> list[nn.Module]:
    """Return the vision tower and what is between it and the language model."""
    part_of = part_of_modules(model)

    def whole(module: nn.Module) -> Iterator[nn.Module]:
        """Yield the largest modules that are projector and nothing else."""
        if all(part_of[id(below)] == PROJECTOR for below in module.modules()):
            if any(True for _ in module.parameters()):
                yield module
            return
        for child in module.children():
            yield from whole(child)

    tower = model.get_encoder(modality='image')
    return [*([] if tower is model else [tower]), *whole(model)]


def head_ms(model: nn.Module) -> float:
    """Return how long the whole output head takes for one token."""
    head = model.get_output_embeddings()
    hidden = torch.ones(1, 1, head.in_features, dtype=head.weight.dtype, device=model.device)
    synchronise(model.device)
    start_s = perf_counter()
    with torch.inference_mode():
        functional.linear(hidden, head.weight, head.bias)
        synchronise(model.device)
    return 1e3 * (perf_counter() - start_s)


def choosing_ms(model: nn.Module, tokenizer: ActionTokenizer) -> float:
    """Return how long it takes to choose one token among the legal ones."""
    chooser = Chooser(tokenizer, 'greedy', 1.0, model.device)
    legal, kind = max(tokenizer.fixed_places, key=lambda place: place[0].size)
    candidates = chooser.prepare(legal, np.arange(legal.size), kind)
    logits = torch.ones(legal.size, dtype=model.dtype, device=model.device)
    with torch.inference_mode():
        chooser.choose(logits, candidates)
        synchronise(model.device)
        start_s = perf_counter()
        chooser.choose(logits, candidates)
        synchronise(model.device)
    return 1e3 * (perf_counter() - start_s)


def count_flop(
    model: nn.Module, decoder: ConstrainedDecoder, inputs: Mapping[str, Any],
) -> dict[str, float]:
    """
    Return the floating-point operations of vision and of the language model over the prompt.

    Two per weight and token of linear layers and convolutions, and attention's two products in
    full, whatever of them a mask hides.
    """
    part_of = part_of_modules(model)
    counted = dict.fromkeys(('vision', LANGUAGE), 0.0)
    names = {VISION: 'vision', PROJECTOR: 'vision', LANGUAGE: LANGUAGE}

    def add(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        name = names.get(part_of[id(module)])
        if name is not None:
            counted[name] += 2.0 * output.numel() * _weights_per_output(module)

    hooks = [module.register_forward_hook(add) for module in model.modules()
             if isinstance(module, (nn.Linear, nn.Conv2d))]
    attention = _Attention(counted)
    hooks.append(language_model(model).register_forward_pre_hook(attention.enter_language))
    try:
        with attention:
            decoder.first_logits(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {'vision': counted['vision'], 'prefill': counted[LANGUAGE]}


class _Attention(TorchFunctionMode):
    """Counts the two matrix products of scaled dot-product attention."""

    def __init__(self, counted: dict[str, float]) -> None:
        super().__init__()
        self._counted = counted
        self._name = 'vision'

    def enter_language(self, *_: Any) -> None:
        self._name = LANGUAGE

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, key = args[:2]
            self._counted[self._name] += 4.0 * query.numel() * key.shape[-2]
        return func(*args, **(kwargs or {}))


def _weights_per_output(module: nn.Linear | nn.Conv2d) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]


def step_bytes(model: nn.Module, positions: float) -> float:
    """Return what a decode step reads: the language model and the keys and values so far."""
    memory = measure_memory(model, 0)
    config = model.config.get_text_config(decoder=True)
    width = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    return (memory.language + memory.language_quantized
            + positions * per_position * model.dtype.itemsize)
