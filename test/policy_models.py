"""Tiny random checkpoints for the policy tests; built in under a second, never downloaded."""

from pathlib import Path

from tokenizers import models as token_models
from tokenizers import pre_tokenizers
from tokenizers import Tokenizer
import torch
from transformers import GemmaConfig
from transformers import LlamaConfig
from transformers import LlavaConfig
from transformers import LlavaForConditionalGeneration
from transformers import LlavaProcessor
from transformers import PaliGemmaConfig
from transformers import PaliGemmaForConditionalGeneration
from transformers import PaliGemmaProcessor
from transformers import PreTrainedTokenizerFast
from transformers import Qwen2_5_VLConfig
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers import SiglipVisionConfig
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vla_policy_node.vla_config import hash_weights
from vla_policy_node.vla_config import VlaConfig

# Two threads on matrices this small cost far more than they give beside any other load.
torch.set_num_threads(1)

IMAGE_SIZE = 32
_PATCH = 8
_SPECIAL = ('<pad>', '<s>', '</s>', '<unk>', '<image>', '<bos>', '<eos>')
_WORDS = [
    'pick', 'up', 'the', 'red', 'green', 'block', 'what', 'is', 'where', '?', 'Action:',
    'Answer:', 'left', 'right', 'robot',
]
FIRST_NUMBER_ID = len(_SPECIAL) + len(_WORDS)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer in which the numbers 0..255 are one token each."""
    words = [*_SPECIAL, *_WORDS, *(str(number) for number in range(256))]
    model = token_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unk>')
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', bos_token='<bos>', eos_token='<eos>',
        unk_token='<unk>', additional_special_tokens=['<image>'],
    )


def digit_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes numbers digit by digit, with ',' between them."""
    words = [*_SPECIAL, *_WORDS, *'0123456789,']
    model = token_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unk>')
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', bos_token='<bos>', eos_token='<eos>',
        unk_token='<unk>', additional_special_tokens=['<image>'],
    )


def save_llava(directory: Path, *, width: int = 64, mlp: int = 128, **overrides) -> Path:
    """Write a tiny LLaVA checkpoint; overrides: entries of its vla_config.json."""
    tokenizer = overrides.pop('tokenizer_object', None) or word_tokenizer()
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=_vision(vision_use_head=False),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=mlp,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=256, initializer_range=0.3, pad_token_id=0, bos_token_id=5,
            eos_token_id=6,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        vision_feature_select_strategy='full', vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    processor = LlavaProcessor(
        image_processor=_image_processor(), tokenizer=tokenizer, patch_size=_PATCH,
        vision_feature_select_strategy='full',
    )
    return _save(directory, model, processor, **overrides)


def save_paligemma(directory: Path, **overrides) -> Path:
    """Write a tiny PaliGemma checkpoint."""
    tokenizer = word_tokenizer()
    torch.manual_seed(0)
    image_processor = _image_processor()
    image_processor.image_seq_length = (IMAGE_SIZE // _PATCH) ** 2
    processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    config = PaliGemmaConfig(
        vision_config=_vision(vision_use_head=False),
        text_config=GemmaConfig(
            vocab_size=len(processor.tokenizer), hidden_size=64, intermediate_size=128,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
            max_position_embeddings=256, initializer_range=0.3, pad_token_id=0, bos_token_id=5,
            eos_token_id=6,
        ),
        image_token_index=processor.image_token_id, projection_dim=64, pad_token_id=0,
    )
    model = PaliGemmaForConditionalGeneration(config)
    return _save(directory, model, processor, **overrides)


def qwen() -> Qwen2_5_VLForConditionalGeneration:
    """Return a tiny Qwen2.5-VL: its positions have three axes, and its processor needs video."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        vision_config={
            'depth': 2, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
            'patch_size': 8, 'window_size': 32, 'out_hidden_size': 64,
            'fullatt_block_indexes': [1],
        },
        text_config={
            'vocab_size': 400, 'hidden_size': 64, 'intermediate_size': 128,
            'num_hidden_layers': 2, 'num_attention_heads': 2, 'num_key_value_heads': 2,
            'initializer_range': 0.3, 'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0,
            'rope_parameters': {
                'rope_type': 'default', 'mrope_section': [4, 6, 6], 'rope_theta': 1e4},
        },
        image_token_id=10, video_token_id=11, vision_start_token_id=12, vision_end_token_id=13,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_inputs(seed: int) -> dict[str, torch.Tensor]:
    """Return a prompt with 8 x 8 random patches, merged to 16 image tokens."""
    ids = torch.tensor([[20, 21, 12] + [10] * 16 + [13, 22, 23]])
    generator = torch.Generator().manual_seed(seed)
    return {
        'input_ids': ids,
        'attention_mask': torch.ones_like(ids),
        'mm_token_type_ids': (ids == 10).int(),
        'pixel_values': 3.0 * torch.randn(64, 3 * 2 * 8 * 8, generator=generator),
        'image_grid_thw': torch.tensor([[1, 8, 8]]),
    }


def vla_config(**overrides) -> dict:
    """Return a vla_config.json for these checkpoints: numbers as words, one camera."""
    stats = {'q01': [-0.04] * 6 + [0.0], 'q99': [0.04] * 6 + [1.0], 'mask': [True] * 6 + [False]}
    return {
        'format_version': 1,
        'action_space': {'frame': 'base', 'period_s': 0.2},
        'tokenizer': {'scheme': 'text', 'separator': ''},
        'norm_stats': {'tabletop': {'action': stats}},
        'prompt': {'action': '{instruction} <image> Action:',
                   'question': '{question} <image> Answer:', 'lowercase': True},
        'cameras': [{'name': 'primary', 'size': [IMAGE_SIZE, IMAGE_SIZE]}],
        **overrides,
    }


def _save(directory: Path, model, processor, **overrides) -> Path:
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    content = vla_config(weights_sha256=hash_weights(directory), **overrides)
    VlaConfig.model_validate(content).save(directory)
    return directory


def _vision(**extra) -> SiglipVisionConfig:
    # Large random weights, so that different images lead to different actions.
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=IMAGE_SIZE, patch_size=_PATCH, **extra,
    )


def _image_processor() -> SiglipImageProcessorPil:
    return SiglipImageProcessorPil(size={'height': IMAGE_SIZE, 'width': IMAGE_SIZE})
