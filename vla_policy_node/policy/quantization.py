"""
Which layers of a model become 4 or 8 bit: the language model's, never vision, projector or head.

bitsandbytes skips layers by patterns that silently match nothing when misspelt, so the names come
from the model itself, and the layers are counted after loading.
"""

from dataclasses import dataclass
import logging
import re

import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers import BitsAndBytesConfig
from transformers import PretrainedConfig

from vla_policy_node.policy.types import PolicyError

QUANTIZATIONS = ('none', 'nf4', 'int8')
# The packed 4-bit CPU kernel refuses other shapes, at the first forward and not at loading.
_CPU_OUT_MULTIPLE = 32
_CPU_IN_MULTIPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationPlan:
    """
    Which linear layers are quantised.

    :param quantized: full module names.
    :param skipped: full module names of all other linear layers.
    :param refused: those of the skipped that are in the language model, but have a shape that the
        4-bit CPU kernel refuses.
    """

    quantized: tuple[str, ...]
    skipped: tuple[str, ...]
    refused: tuple[str, ...]


def plan_quantization(
    config: PretrainedConfig, quantization: str, device: str
) -> QuantizationPlan:
    """Plan for a model of this configuration; builds it without weights."""
    with torch.device('meta'):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    language_ids = _language_modules(model)
    language = [name for name, linear in linears.items() if id(linear) in language_ids]
    refused = ()
    if quantization == 'nf4' and device == 'cpu':
        refused = tuple(name for name in language if not _fits_cpu_kernel(linears[name]))
    quantized = tuple(name for name in language if name not in refused)
    skipped = tuple(name for name in linears if name not in quantized)
    return QuantizationPlan(quantized=quantized, skipped=skipped, refused=refused)


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
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type='nf4',
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def count_quantized(model: nn.Module, quantization: str) -> int:
    """Count the layers that really are 4 or 8 bit."""
    if quantization == 'none':
        return 0
    import bitsandbytes

    kinds = {'nf4': bitsandbytes.nn.Linear4bit, 'int8': bitsandbytes.nn.Linear8bitLt}
    return sum(isinstance(module, kinds[quantization]) for module in model.modules())


def check_quantized(model: nn.Module, plan: QuantizationPlan, quantization: str) -> int:
    """Return how many layers are quantised; raise PolicyError if it is none, or not the plan."""
    count = count_quantized(model, quantization)
    if count == 0 or count != len(plan.quantized):
        raise PolicyError(
            f"expected {len(plan.quantized)} of the language model's linear layers in "
            f'{quantization} (at least one), found {count}, with {len(plan.refused)} of a shape '
            'the 4-bit CPU kernel refuses; use quantization none'
        )
    return count


def _language_modules(model: nn.Module) -> set[int]:
    """Return the ids of the language model's modules, without the output head."""
    inside = {id(module) for module in model.get_decoder().modules()}
    vision = model.get_encoder(modality='image')
    if vision is not model:
        inside -= {id(module) for module in vision.modules()}
    return inside - {id(model.get_output_embeddings())}


def _fits_cpu_kernel(linear: nn.Linear) -> bool:
    """Tell whether the packed 4-bit CPU kernel takes a layer of this shape."""
    return (
        linear.out_features % _CPU_OUT_MULTIPLE == 0
        and linear.in_features % _CPU_IN_MULTIPLE == 0
    )
