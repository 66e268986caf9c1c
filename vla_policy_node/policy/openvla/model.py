"""
OpenVLA as a model of transformers: vision towers, projector, Llama.

A picture has no ids: its patches enter the language model right after the first token. Outside of
`forward` nobody sees them: attention masks and logits have one column per id.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig
from transformers import AutoModelForImageTextToText
from transformers import Cache
from transformers import GenerationMixin
from transformers import LlamaForCausalLM
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vla_policy_node.policy.openvla.configuration import OpenVLAConfig
from vla_policy_node.policy.openvla.vision import VisionBackbone


class Projector(nn.Module):
    """Patch features -> embeddings of the language model; wider where two towers meet."""

    def __init__(self, vision_dim: int, language_dim: int, fused: bool) -> None:
        super().__init__()
        widths = [vision_dim, *([4 * vision_dim] if fused else []), language_dim, language_dim]
        for place, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
            self.add_module(f'fc{place}', nn.Linear(before, after))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, N, vision_dim) -> (B, N, language_dim)."""
        first, *others = self.children()
        x = first(features)
        for layer in others:
            x = layer(functional.gelu(x))
        return x


class OpenVLAForActionPrediction(PreTrainedModel, GenerationMixin):
    """The whole model; its class has the name that the original config.json gives."""

    config_class = OpenVLAConfig
    base_model_prefix = ''
    input_modalities = ('image', 'text')
    supports_gradient_checkpointing = True
    _no_split_modules = ['LlamaDecoderLayer', 'VisionBlock']
    _skip_keys_device_placement = ['past_key_values']
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # Of the towers only what comes before the last block is used.
    _keys_to_ignore_on_load_unexpected = [
        r'vision_backbone\.\w*featurizer\.(blocks\.\d+|norm|attn_pool|fc_norm|head)\.',
        r'rotary_emb\.inv_freq$']

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__(config)
        towers = config.vision_towers
        self.vision_backbone = VisionBackbone(towers)
        self.projector = Projector(
            self.vision_backbone.dim, config.text_config.hidden_size, fused=len(towers) > 1)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the vision towers for 'image'."""
        return self.vision_backbone if modality == 'image' else self

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        return self.language_model.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's head."""
        self.language_model.lm_head = new_embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int = 0,
        position_ids: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """
        Return (B, T, V) logits, one column per id; logits_to_keep: only that many last ones.

        input_ids: (B, T). attention_mask: (B, ids so far). pixel_values: (B, 3 per tower, S, S)
        of one picture each, only with the first ids. position_ids is not used: positions count
        the patches too.
        """
        del position_ids, return_dict
        embeddings = self.get_input_embeddings()(input_ids)
        patches = 0
        if pixel_values is not None:
            images = self.projector(self.vision_backbone(pixel_values)).to(embeddings.dtype)
            patches = images.shape[1]
            embeddings = torch.cat([embeddings[:, :1], images, embeddings[:, 1:]], dim=1)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        outputs = self.language_model.model(
            inputs_embeds=embeddings,
            attention_mask=_with_patches(attention_mask, seen + embeddings.shape[1]),
            past_key_values=past_key_values, **kwargs)
        hidden = outputs.last_hidden_state
        if patches:
            hidden = torch.cat([hidden[:, :1], hidden[:, 1 + patches:]], dim=1)
        return CausalLMOutputWithPast(
            logits=self.language_model.lm_head(hidden[:, -logits_to_keep:]),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions)


def _with_patches(mask: torch.Tensor | None, columns: int) -> torch.Tensor | None:
    """Let a mask over ids cover the patches after the first of them as well."""
    if mask is None or mask.dim() != 2 or mask.shape[1] == columns:
        return mask
    patches = mask.new_ones(len(mask), columns - mask.shape[1])
    return torch.cat([mask[:, :1], patches, mask[:, 1:]], dim=1)


def register() -> None:
    """Let transformers find our classes by the model type, so that it never asks for others."""
    AutoConfig.register(OpenVLAConfig.model_type, OpenVLAConfig, exist_ok=True)
    AutoModelForImageTextToText.register(
        OpenVLAConfig, OpenVLAForActionPrediction, exist_ok=True)
