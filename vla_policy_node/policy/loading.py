"""A checkpoint directory -> HFPolicy; everything that can be refused is, before weights load."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
import torch
from transformers import AutoConfig
from transformers import AutoProcessor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers import PretrainedConfig

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import build_action_tokenizer
from vla_policy_node.action_tokenizer import plan_token_ids
from vla_policy_node.action_tokenizer import text_number_ids
from vla_policy_node.policy.checkpoint import checkpoint_name
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.checkpoint import read_json
from vla_policy_node.policy.checkpoint import resolve_checkpoint
from vla_policy_node.policy.cpu_linear import use_cpu_kernels
from vla_policy_node.policy.decoding import DECODINGS
from vla_policy_node.policy.failures import named_failures
from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.failures import return_freed_memory
from vla_policy_node.policy.hf_policy import HFPolicy
from vla_policy_node.policy.hf_policy import LoadedModel
from vla_policy_node.policy.memory import measure_memory
from vla_policy_node.policy.memory import PeakMemory
from vla_policy_node.policy.openvla.configuration import read_config as read_openvla_config
from vla_policy_node.policy.openvla.layout import MODEL_TYPE as OPENVLA
from vla_policy_node.policy.openvla.model import register as register_openvla
from vla_policy_node.policy.openvla.processor import OpenVLAProcessor
from vla_policy_node.policy.quantization import bitsandbytes_config
from vla_policy_node.policy.quantization import check_quantized
from vla_policy_node.policy.quantization import plan_quantization
from vla_policy_node.policy.quantization import QUANTIZATIONS
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.policy.weights import DATA_ONLY
from vla_policy_node.policy.weights import load_weights
from vla_policy_node.policy.weights import OUT_OF_MEMORY_ADVICE
from vla_policy_node.vla_config import TokenizerConfig

DTYPES = {
    'bfloat16': torch.bfloat16,
    'float32': torch.float32,
    'float16': torch.float16,
}

# What transformers raises over files that make no sense.
_UNREADABLE = (OSError, ValueError, TypeError, ImportError, KeyError, AttributeError,
               ArithmeticError, RecursionError, StrictDataclassError)

register_openvla()


def load(
    checkpoint: str | Path,
    *,
    device: str,
    quantization: str,
    dtype: str,
    unnorm_key: str | None,
    decoding: str | None,
    plan: bool = True,
    quantize_vision: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> HFPolicy:
    """See ``vla_policy_node.policy.load_policy``."""
    if decoding is not None:
        _check_choice('decoding', decoding, DECODINGS)
    loaded = load_model(
        checkpoint, device=device, quantization=quantization, dtype=dtype,
        unnorm_key=unnorm_key, plan=plan, quantize_vision=quantize_vision,
    )
    with named_failures(f'preparing {loaded.checkpoint_name}', OUT_OF_MEMORY_ADVICE):
        return HFPolicy(loaded, decoding, temperature=temperature, seed=seed)


def load_model(
    checkpoint: str | Path,
    *,
    device: str = 'cpu',
    quantization: str = 'nf4',
    dtype: str = 'bfloat16',
    unnorm_key: str | None = None,
    plan: bool = True,
    quantize_vision: bool = False,
) -> LoadedModel:
    """Load a checkpoint's model and everything that belongs to it; see ``load_policy``."""
    _check_choice('quantization', quantization, QUANTIZATIONS)
    if quantize_vision and quantization == 'none':
        raise PolicyError('quantize_vision: expected quantization nf4 or int8, found none')
    _check_choice('dtype', dtype, tuple(DTYPES))
    _check_device(device)
    directory = resolve_checkpoint(checkpoint)
    vla_config = read_checkpoint(directory)
    if not plan:
        vla_config = vla_config.without_plan()
    unnorm_key, action_space = vla_config.build_action_space(unnorm_key)
    config = read_model_config(directory)
    processor = load_processor(directory)
    tokenizer = load_action_tokenizer(vla_config.tokenizer, processor.tokenizer)
    layers = None
    settings: dict[str, Any] = {'dtype': DTYPES[dtype]}
    if quantization != 'none':
        layers = plan_quantization(config, quantization, device, vision=quantize_vision)
        settings['quantization_config'] = bitsandbytes_config(layers, quantization, DTYPES[dtype])
    with PeakMemory(device) as peak:
        model = load_weights(directory, config, device, settings)
    quantized_layers = check_quantized(model, layers, quantization) if layers else 0
    if device == 'cpu':
        use_cpu_kernels(model)
    return_freed_memory()
    return LoadedModel(
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        config=vla_config,
        action_space=action_space,
        unnorm_key=unnorm_key,
        checkpoint_name=checkpoint_name(checkpoint),
        robot_only=getattr(config, 'robot_only', False),
        quantization=quantization,
        quantized_layers=quantized_layers,
        refused_layers=len(layers.refused) if layers else 0,
        quantized_vision_layers=len(layers.vision) if layers else 0,
        kept_layers=layers.refused + layers.refused_vision if layers else (),
        memory=measure_memory(model, peak.bytes),
        device=device,
        dtype=DTYPES[dtype],
    )


def load_processor(directory: Path) -> Any:
    """Return the checkpoint's processor, with a tokenizer and an image processor."""
    if read_json(directory / 'config.json').get('model_type') == OPENVLA:
        return OpenVLAProcessor.from_folder(directory)
    try:
        processor = AutoProcessor.from_pretrained(directory, **DATA_ONLY)
    except _UNREADABLE as error:
        raise PolicyError(
            f"{directory} has no usable processor ({one_line(error)}); save the model's "
            'processor there, one that works without torchvision'
        ) from error
    for part in ('tokenizer', 'image_processor'):
        if not hasattr(processor, part):
            raise PolicyError(
                f'expected {directory} to hold a processor with a {part}, found '
                f'{type(processor).__name__}; save the whole processor of the model there'
            )
    return processor


def load_action_tokenizer(config: TokenizerConfig, tokenizer: Any) -> ActionTokenizer:
    """Build the scheme of the checkpoint; tokenizer: the model's own, for numbers and plans."""
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def encode_known(text: str) -> list[int]:
        ids = encode(text)
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise PolicyError(
                f'plan: expected text that the model knows, found {text!r}, of which its '
                'tokenizer makes an unknown token; choose another in vla_config.json'
            )
        return ids

    numbers = {}
    if config.scheme == 'text':
        numbers = text_number_ids(encode, config.separator)
    plan = plan_token_ids(config, encode_known, lambda: _word_ids(tokenizer))
    return build_action_tokenizer(config, **numbers, **plan)


def _word_ids(tokenizer: Any) -> set[int]:
    """Return the ids that stand for text: no end, padding, image or other special token."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return set(tokenizer.get_vocab().values()) - special - set(tokenizer.all_special_ids)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise PolicyError listing the allowed values."""
    if value not in allowed:
        raise PolicyError(f'expected {name} to be one of {", ".join(allowed)}, found {value!r}')


def _check_device(device: str) -> None:
    """Raise PolicyError unless the device exists."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ['cpu', *(['cuda'] if n_gpus else []), *(f'cuda:{i}' for i in range(n_gpus))]
    if device not in allowed:
        raise PolicyError(
            f'expected device to be one of {", ".join(allowed)} on this machine, found {device!r}'
        )


def read_model_config(directory: Path) -> PretrainedConfig:
    """Return the configuration of a model that transformers or this suite implements."""
    raw = read_json(directory / 'config.json')
    kind = raw.get('model_type')
    try:
        config = (read_openvla_config(directory) if kind == OPENVLA
                  else AutoConfig.from_pretrained(directory, **DATA_ONLY))
    except PolicyError:
        raise
    except _UNREADABLE as error:
        reason = one_line(error)
        if 'auto_map' in raw and kind != OPENVLA:
            reason = 'it brings its own Python code (auto_map), which is never run'
        raise PolicyError(
            f'cannot read the configuration of model type {kind!r} in {directory}: {reason}; '
            'use a model type that transformers implements'
        ) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise PolicyError(
            f'expected a model that takes images and text and writes text, found model type '
            f'{kind!r} in {directory}'
        )
    if getattr(config, 'quantization_config', None) is not None:
        raise PolicyError(
            f'the weights in {directory} are already quantised; give the original checkpoint '
            'and choose the quantization when loading'
        )
    return config
