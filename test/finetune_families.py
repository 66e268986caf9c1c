"""Tiny random models of several families, with prompts made by hand in place of processors."""

import torch
from transformers import Gemma3Config
from transformers import Gemma3ForConditionalGeneration
from transformers import Idefics3Config
from transformers import Idefics3ForConditionalGeneration
from transformers import InternVLConfig
from transformers import InternVLForConditionalGeneration
from transformers import LlamaConfig
from transformers import LlavaConfig
from transformers import LlavaForConditionalGeneration
from transformers import PaliGemmaConfig
from transformers import PaliGemmaForConditionalGeneration
from transformers import Qwen2_5_VLConfig
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers import Qwen3VLConfig
from transformers import Qwen3VLForConditionalGeneration
from transformers import SmolVLMConfig
from transformers import SmolVLMForConditionalGeneration

from vla_policy_node.policy.openvla.configuration import OpenVLAConfig
from vla_policy_node.policy.openvla.model import OpenVLAForActionPrediction

IMAGE_ID = 10
FIRST_BIN_ID = 100
_LANGUAGE = {
    'vocab_size': 400, 'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2,
    'num_attention_heads': 2, 'num_key_value_heads': 2, 'initializer_range': 0.3,
    'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0,
}
_SIGLIP = {
    'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 2,
    'image_size': 32, 'patch_size': 8, 'vision_use_head': False,
}
_ROPE = {'rope_type': 'default', 'mrope_section': [4, 6, 6], 'rope_theta': 1e4}
_MARKERS = {
    'image_token_id': IMAGE_ID, 'video_token_id': 11, 'vision_start_token_id': 12,
    'vision_end_token_id': 13,
}


def llava():
    """16 image tokens of one picture."""
    return LlavaForConditionalGeneration(LlavaConfig(
        vision_config={'model_type': 'siglip_vision_model', **_SIGLIP},
        text_config={'model_type': 'llama', **_LANGUAGE}, image_token_index=IMAGE_ID,
        vision_feature_select_strategy='full', vision_feature_layer=-1))


def paligemma():
    """A prompt that is read in both directions."""
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(
        vision_config={'model_type': 'siglip_vision_model', **_SIGLIP},
        text_config={'model_type': 'gemma', 'head_dim': 32, **_LANGUAGE},
        image_token_index=IMAGE_ID, projection_dim=64, pad_token_id=0,
        tie_word_embeddings=False))


def paligemma2():
    """The same with windows and a soft cap on the logits."""
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(
        vision_config={'model_type': 'siglip_vision_model', **_SIGLIP},
        text_config={'model_type': 'gemma2', 'head_dim': 32, 'final_logit_softcapping': 5.0,
                     'sliding_window': 64, **_LANGUAGE},
        image_token_index=IMAGE_ID, projection_dim=64, pad_token_id=0,
        tie_word_embeddings=False))


def gemma3():
    """Pictures that are read in both directions, words that are not."""
    return Gemma3ForConditionalGeneration(Gemma3Config(
        vision_config={'model_type': 'siglip_vision_model', **_SIGLIP},
        text_config={'model_type': 'gemma3_text', 'head_dim': 32, 'sliding_window': 64,
                     **_LANGUAGE},
        image_token_id=IMAGE_ID, mm_tokens_per_image=16, boi_token_index=12, eoi_token_index=13,
        tie_word_embeddings=False))


def idefics3(config=Idefics3Config, model=Idefics3ForConditionalGeneration):
    """4 image tokens per tile; the number of tiles differs between pictures."""
    vision = {name: value for name, value in _SIGLIP.items() if name != 'vision_use_head'}
    return model(config(
        vision_config=vision, text_config={'model_type': 'llama', **_LANGUAGE},
        image_token_id=IMAGE_ID, scale_factor=2, pad_token_id=0))


def smolvlm():
    """The same with another way to put pictures into the text."""
    return idefics3(SmolVLMConfig, SmolVLMForConditionalGeneration)


def qwen2_5_vl():
    """Positions with three axes; windows in the vision tower."""
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        vision_config={
            'depth': 2, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
            'patch_size': 8, 'window_size': 32, 'out_hidden_size': 64,
            'fullatt_block_indexes': [1]},
        text_config={**_LANGUAGE, 'rope_parameters': _ROPE}, **_MARKERS))


def qwen3_vl():
    """The same with features from several layers of the vision tower."""
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        vision_config={
            'depth': 2, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
            'patch_size': 8, 'out_hidden_size': 64, 'num_position_embeddings': 64,
            'deepstack_visual_indexes': [0]},
        text_config={**_LANGUAGE, 'head_dim': 32, 'rope_parameters': _ROPE}, **_MARKERS))


def internvl():
    """4 image tokens per tile."""
    return InternVLForConditionalGeneration(InternVLConfig(
        vision_config={
            'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 2,
            'num_attention_heads': 2, 'image_size': [32, 32], 'patch_size': [8, 8]},
        text_config={'model_type': 'qwen2', **_LANGUAGE}, image_token_id=IMAGE_ID,
        image_seq_length=4))


def openvla():
    """16 patches of one picture, which have no ids in the prompt."""
    towers = [
        {'size': 32, 'patch': 8, 'dim': 32, 'blocks': 2, 'heads': 2, 'hidden': 64,
         'positions': 16, 'class_token': registers > 0, 'registers': registers,
         'layer_scale': registers > 0, 'pre_norm': False, 'patch_bias': True,
         'activation': 'gelu', 'epsilon': 1e-6} for registers in (4, 0)]
    return OpenVLAForActionPrediction(OpenVLAConfig(
        vision_towers=towers, text_config=LlamaConfig(**_LANGUAGE)))


FAMILIES = {
    make.__name__: make for make in (
        llava, paligemma, paligemma2, gemma3, idefics3, smolvlm, qwen2_5_vl, qwen3_vl, internvl,
        openvla)}


def build(name):
    """Return the family's model, the same random weights every time."""
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


def prompt(name, seed, words=4, tiles=1):
    """Return what the family's processor would make of some words and random pixels."""
    generator = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        return 2.0 * torch.randn(*shape, generator=generator)

    per_tile = {'idefics3': 4, 'smolvlm': 4, 'internvl': 4}.get(name, 16)
    tiles = tiles if name in ('idefics3', 'smolvlm', 'internvl') else 1
    before = torch.randint(20, 90, (words,), generator=generator).tolist()
    ids = torch.tensor([[1, *before, 12, *[IMAGE_ID] * (per_tile * tiles), 13, 21, 22]])
    inputs = {'input_ids': ids, 'attention_mask': torch.ones_like(ids)}
    if name == 'openvla':
        ids = ids[:, ids[0] != IMAGE_ID]
        return {'input_ids': ids, 'attention_mask': torch.ones_like(ids),
                'pixel_values': 4.0 * pixels(1, 6, 32, 32)}
    if name.startswith('paligemma'):
        inputs['token_type_ids'] = torch.zeros_like(ids)
    if name == 'gemma3':
        inputs['token_type_ids'] = (ids == IMAGE_ID).long()
    if name.startswith('qwen'):
        side = 3 * 2 * 8 * 8
        return {**inputs, 'mm_token_type_ids': (ids == IMAGE_ID).int(),
                'pixel_values': pixels(64, side), 'image_grid_thw': torch.tensor([[1, 8, 8]])}
    if name in ('idefics3', 'smolvlm'):
        return {**inputs, 'pixel_values': pixels(1, tiles, 3, 32, 32),
                'pixel_attention_mask': torch.ones(1, tiles, 32, 32, dtype=torch.bool)}
    return {**inputs, 'pixel_values': pixels(tiles, 3, 32, 32)}
