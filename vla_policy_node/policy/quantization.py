"""
Which layers of a model become 4 or 8 bit: the language model's, and vision's where asked for.

bitsandbytes skips layers by patterns that silently match nothing when misspelt, so the names come
from the model itself, and the layers are counted after loading. The output head always stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import logging
import re

import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers import BitsAndBytesConfig
from transformers import PretrainedConfig

from vla_policy_node.policy.parts import LANGUAGE
from vla_policy_node.policy.parts import part_of_modules
from vla_policy_node.policy.parts import PROJECTOR
from vla_policy_node.policy.parts import VISION
from vla_policy_node.policy.types import PolicyError

QUANTIZATIONS = ('none', 'nf4', 'int8')
# The packed 4-bit CPU kernel refuses other shapes, at the first forward and not at loading.
_CPU_OUT_MULTIPLE = 32
_CPU_IN_MULTIPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationPlan:
    """
    Which linear layers are quantised, by their full module names.

    :param language: of the language model.
    :param vision: of the vision towers and the projector; none unless asked for.
    :param skipped: all other linear layers.
    :param refused: those of the language model that have a shape the 4-bit CPU kernel refuses.
    :param refused_vision: the same of vision towers and projector, where those were asked for.
    """

    language: tuple[str, ...]
    vision: tuple[str, ...]
    skipped: tuple[str, ...]
    refused: tuple[str, ...]
    refused_vision: tuple[str, ...]

    @property
    def quantized(self) -> tuple[str, ...]:
        """Return all layers that are quantised."""
        return self.language + self.vision


def plan_quantization(
    config: PretrainedConfig, quantization: str, device: str, vision: bool = False
) -> QuantizationPlan:
    """
    Plan for a model of this configuration; builds it without weights.

    :param vision: quantise vision towers and projector too.
    :raises PolicyError: no layer of the language model has a shape that can be quantised.
    """
    with torch.device('meta'):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    part_of = part_of_modules(model)
    fits = _fits_cpu_kernel if quantization == 'nf4' and device == 'cpu' else _is_plain
    taken: dict[str, list[str]] = {LANGUAGE: [], VISION: []}
    refused: dict[str, list[str]] = {LANGUAGE: [], VISION: []}
    for name, linear in linears.items():
        part = part_of[id(linear)]
        part = VISION if part == PROJECTOR else part
        if part == LANGUAGE or (part == VISION and vision):
            (taken if fits(linear) else refused)[part].append(name)
    if not taken[LANGUAGE]:
        raise _nothing_fits({name: linears[name] for name in refused[LANGUAGE]}, quantization)
    quantized = {*taken[LANGUAGE], *taken[VISION]}
    return QuantizationPlan(
        language=tuple(taken[LANGUAGE]), vision=tuple(taken[VISION]),
        skipped=tuple(name for name in linears if name not in quantized),
        refused=tuple(refused[LANGUAGE]), refused_vision=tuple(refused[VISION]))


def bitsandbytes_config(
    plan: QuantizationPlan, quantization: str, dtype: torch.dtype
) -> BitsAndBytesConfig:
    """Return the configuration that quantises exactly the planned layers."""
    # Patterns are matched as regular expressions from the start of the full name.
    skip = [f'{re.escape(name)}$' for name in plan.skipped]
    if quantization == 'int8':
        # It warns of the same harmless cast at every layer of every token.
        logging.getLogger('bitsandbytes.autograd._functions').setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    # It warns of a kernel to download, which `cpu_linear` has no use for.
    logging.getLogger('bitsandbytes.backends.cpu.ops').setLevel(logging.ERROR)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type='nf4',
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def is_quantized(module: nn.Module) -> bool:
    """Tell whether a layer is 4 or 8 bit."""
    # By name: a model that is not quantised must not cost the import of bitsandbytes.
    return type(module).__name__ in ('Linear4bit', 'Linear8bitLt')


def check_quantized(model: nn.Module, plan: QuantizationPlan, quantization: str) -> int:
    """
    Return how many layers of the language model are quantised.

    :raises PolicyError: the model's quantised layers are not the planned ones, or their weights
        are not of the model's shapes, which transformers does not check.
    """
    found = {name: module for name, module in model.named_modules() if is_quantized(module)}
    if found.keys() != set(plan.quantized):
        raise PolicyError(
            f'expected {len(plan.quantized)} linear layers in {quantization}, found {len(found)}; '
            'use quantization none')
    for name, layer in found.items():
        wanted = (layer.out_features, layer.in_features)
        state = getattr(layer.weight, 'quant_state', None)
        shape = tuple(layer.weight.shape if state is None else state.shape)
        if shape != wanted:
            raise PolicyError(
                f'expected the weights of {name} to have shape {wanted}, found {shape}; weights '
                'and config.json do not belong together')
    return len(plan.language)


def _is_plain(linear: nn.Linear) -> bool:
    """Tell whether a layer computes by itself: attention of torch only reads its weights."""
    return type(linear) is nn.Linear


def _fits_cpu_kernel(linear: nn.Linear) -> bool:
    """Tell whether the packed 4-bit CPU kernel takes a layer of this shape."""
    return (
        _is_plain(linear)
        and linear.out_features % _CPU_OUT_MULTIPLE == 0
        and linear.in_features % _CPU_IN_MULTIPLE == 0
    )


def _nothing_fits(refused: Mapping[str, nn.Linear], quantization: str) -> PolicyError:
    first = next(iter(refused.items()), None)
    example = f', such as {first[0]} of {first[1].out_features} x {first[1].in_features}' \
        if first else ''
    return PolicyError(
        f"expected at least one of the language model's linear layers in {quantization}, found 0, "
        f'with {len(refused)} of a shape the 4-bit CPU kernel refuses{example} (it takes outputs '
        f'in multiples of {_CPU_OUT_MULTIPLE} and inputs of {_CPU_IN_MULTIPLE}); use quantization '
        'none')
