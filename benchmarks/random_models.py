"""
Models with the shapes of real ones and random weights, built a layer at a time.

Nothing is ever held in full precision but the layer that is being made, so a 7-billion-parameter
model in 4 bits needs little more memory than it takes in the end. The same seed gives the same
weights, whatever they are quantised to afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Any

from accelerate import init_empty_weights
import bitsandbytes
import torch
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers import BitsAndBytesConfig
from transformers import GemmaConfig
from transformers import LlamaConfig
from transformers import LlavaConfig
from transformers import PaliGemmaConfig
from transformers import PreTrainedConfig
from transformers import SiglipVisionConfig
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.policy.loading import register_openvla
from vla_policy_node.policy.openvla.configuration import OpenVLAConfig
from vla_policy_node.policy.openvla.pictures import OpenVLAImageProcessor
from vla_policy_node.policy.quantization import bitsandbytes_config
from vla_policy_node.policy.quantization import plan_quantization

IMAGE_TOKEN = 2

register_openvla()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """
    What is built, and what it takes.

    :param config: the model's shapes.
    :param image_processor: (H, W, 3) uint8 pictures -> pixel_values, as the family does it.
    :param image_ids: how many ids of the prompt stand for the picture.
    :param tokenizer: where in the vocabulary the actions are.
    :param extra_inputs: names of further (1, T) int64 inputs, which are zeros.
    """

    config: PreTrainedConfig
    image_processor: Callable[..., Any]
    image_ids: int
    tokenizer: ActionTokenizer
    extra_inputs: tuple[str, ...] = ()


def tiny() -> Family:
    """Return a LLaVA of 3 million parameters, for a quick look."""
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3,
            image_size=96, patch_size=12, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=320, hidden_size=192, intermediate_size=512, num_hidden_layers=4,
            num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=512,
        ),
        image_token_index=IMAGE_TOKEN, vision_feature_select_strategy='full',
        vision_feature_layer=-1,
    )
    return Family(config=config, image_processor=_siglip_pictures(96), image_ids=64,
                  tokenizer=AddedTokens(first_id=64))


def paligemma288m() -> Family:
    """Return a PaliGemma with its vocabulary of 257,216 and a small language model."""
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=384, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=6,
            image_size=224, patch_size=14, vision_use_head=False,
        ),
        text_config=GemmaConfig(
            vocab_size=257216, hidden_size=768, intermediate_size=3072, num_hidden_layers=8,
            num_attention_heads=6, num_key_value_heads=1, head_dim=128,
        ),
        image_token_index=IMAGE_TOKEN, projection_dim=768,
    )
    return Family(config=config, image_processor=_siglip_pictures(224), image_ids=256,
                  tokenizer=AddedTokens(first_id=257216 - 256), extra_inputs=('token_type_ids',))


def openvla7b() -> Family:
    """Return OpenVLA: DINOv2-L with registers and SigLIP So400m at 224 pixels, Llama 2 7B."""
    common = {'size': 224, 'patch': 14, 'positions': 256, 'heads': 16, 'pre_norm': False,
              'patch_bias': True, 'activation': 'gelu', 'epsilon': 1e-6}
    # Of 24 and 27 blocks the last is never run.
    dinov2 = {**common, 'dim': 1024, 'blocks': 23, 'hidden': 4096, 'class_token': True,
              'registers': 4, 'layer_scale': True}
    siglip = {**common, 'dim': 1152, 'blocks': 26, 'hidden': 4304, 'class_token': False,
              'registers': 0, 'layer_scale': False}
    text = LlamaConfig(
        vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=2048,
        pad_token_id=32000,
    )
    pictures = OpenVLAImageProcessor.from_model_config({
        'vision_backbone_id': 'dinosiglip-vit-so-224px', 'image_resize_strategy': 'resize-naive'})
    return Family(
        config=OpenVLAConfig(vision_towers=[dinov2, siglip], text_config=text),
        image_processor=pictures, image_ids=0, tokenizer=AddedTokens(first_id=32000 - 256))


FAMILIES: dict[str, Callable[[], Family]] = {
    'tiny': tiny, 'paligemma288m': paligemma288m, 'openvla7b': openvla7b}


def build(
    config: PreTrainedConfig, device: str, dtype: torch.dtype, quantization: str, seed: int = 0,
) -> nn.Module:
    """Return a model in eval mode on the device; its language model quantised as asked."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForImageTextToText.from_config(config)
    if quantization != 'none':
        plan = plan_quantization(config, quantization, device)
        settings = bitsandbytes_config(plan, quantization, dtype)
        for name in plan.language:
            model.set_submodule(name, _quantised(model.get_submodule(name), settings))
    for place, module in enumerate(model.modules()):
        generator = torch.Generator(device).manual_seed(seed + place)
        _fill(module, torch.device(device), dtype, generator)
    model.tie_weights()
    return model.eval()


def _quantised(linear: nn.Linear, settings: BitsAndBytesConfig) -> nn.Linear:
    """Return the empty layer of bitsandbytes that takes a layer's place."""
    shape = linear.in_features, linear.out_features, linear.bias is not None
    if settings.load_in_8bit:
        return bitsandbytes.nn.Linear8bitLt(
            *shape, has_fp16_weights=False, threshold=settings.llm_int8_threshold, device='meta')
    return bitsandbytes.nn.Linear4bit(
        *shape, compute_dtype=settings.bnb_4bit_compute_dtype,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type, device='meta')


def _fill(
    module: nn.Module, device: torch.device, dtype: torch.dtype, generator: torch.Generator,
) -> None:
    """Give a module's own parameters values, and its buffers a device."""
    for name, empty in module.named_parameters(recurse=False):
        value = torch.empty(empty.shape, dtype=dtype, device=device)
        if empty.dim() > 1:
            # Every layer passes on about as much as it gets, whatever its width.
            value.normal_(0.0, 1.0 / math.sqrt(empty[0].numel()), generator=generator)
        else:
            value.fill_(0.0 if name == 'bias' else 1.0)
        setattr(module, name, _parameter(empty, value, device))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, buffer.to(device))


def _parameter(empty: nn.Parameter, value: torch.Tensor, device: torch.device) -> nn.Parameter:
    """Return a value as the kind of parameter that the empty one is, quantised on the way."""
    if isinstance(empty, bitsandbytes.nn.Params4bit):
        return bitsandbytes.nn.Params4bit(
            value, quant_type=empty.quant_type, compress_statistics=empty.compress_statistics,
        ).to(device)
    if isinstance(empty, bitsandbytes.nn.Int8Params):
        # It quantises what comes from a CPU.
        return bitsandbytes.nn.Int8Params(value.cpu(), requires_grad=False).to(device)
    # As after loading: torch takes other kernels for weights that need no gradient.
    return nn.Parameter(value)


def _siglip_pictures(side: int) -> Callable[..., Any]:
    return SiglipImageProcessorPil(size={'height': side, 'width': side})
