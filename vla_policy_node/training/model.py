"""
Build the model and run it the way training needs it: features once, many prompts behind them.

Knows nothing of where images and labels come from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import math

import torch
from torch import nn
from transformers import LlamaConfig
from transformers import LlavaConfig
from transformers import LlavaForConditionalGeneration
from transformers import SiglipVisionConfig

from vla_policy_node.training.config import ModelConfig

_ROUND_VOCABULARY_TO = 64
_WHITEN_FLOOR = 0.003


def build_model(
    config: ModelConfig, *, vocabulary: int, image_id: int, pad_id: int, eos_id: int,
    number_ids: torch.Tensor,
) -> LlavaForConditionalGeneration:
    """Build a LLaVA with random weights; the number embeddings start smooth."""
    vocabulary = math.ceil(vocabulary / _ROUND_VOCABULARY_TO) * _ROUND_VOCABULARY_TO
    vision = SiglipVisionConfig(
        hidden_size=config.width, intermediate_size=config.vision_mlp,
        num_hidden_layers=config.vision_layers, num_attention_heads=config.vision_heads,
        image_size=config.image_size, patch_size=config.patch_size, vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=config.width, intermediate_size=config.text_mlp,
        num_hidden_layers=config.text_layers, num_attention_heads=config.text_heads,
        num_key_value_heads=config.text_heads, max_position_embeddings=512,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=eos_id, pad_token_id=pad_id,
    )
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_id,
        image_seq_length=config.image_tokens, vision_feature_layer=-1,
        vision_feature_select_strategy='full', tie_word_embeddings=False,
    ))
    # Without a fused kernel for these sizes the plain attention is the fastest on CPU.
    model.set_attn_implementation('eager')
    # The usual initial scale drowns the place of a patch in the grey of its table.
    nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.5)
    _smooth_numbers(model.get_input_embeddings().weight, number_ids)
    _smooth_numbers(model.get_output_embeddings().weight, number_ids)
    return model


@torch.no_grad()
def _smooth_numbers(weight: torch.Tensor, ids: torch.Tensor, frequencies: int = 12) -> None:
    """Give neighbouring numbers neighbouring rows: random mixtures of slow sinusoids."""
    position = torch.linspace(0.0, math.pi, len(ids))[:, None]
    waves = torch.cos(position * torch.arange(1, frequencies + 1))
    mixing = torch.randn(frequencies, weight.shape[1]) / math.sqrt(frequencies)
    rows = waves @ mixing
    weight[ids] = (rows / rows.std() * 0.05).to(weight.dtype)


def image_features(
    model: LlavaForConditionalGeneration, images: torch.Tensor
) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, image tokens, width): the projected image tokens."""
    return image_features_and_early(model, images)[0]


def image_features_and_early(
    model: LlavaForConditionalGeneration, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same and also return what the first layer of the vision tower put out."""
    tower = model.model.vision_tower
    convolution = tower.embeddings.patch_embedding
    # The same sums as the convolution, whose backward pass is many times slower on CPU.
    hidden = nn.functional.linear(
        _patches(images, convolution.kernel_size[0]), convolution.weight.flatten(1),
        convolution.bias)
    hidden = hidden + tower.embeddings.position_embedding.weight
    early = tower.encoder.layers[0](hidden, attention_mask=None)
    hidden = early
    for layer in tower.encoder.layers[1:]:
        hidden = layer(hidden, attention_mask=None)
    return model.model.multi_modal_projector(hidden), early


def _patches(images: torch.Tensor, side: int) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, patches, 3 * side * side) in [-1, 1], as a convolution sees it."""
    count, height, width, _ = images.shape
    grid = images.view(count, height // side, side, width // side, side, 3)
    flat = grid.permute(0, 1, 3, 5, 2, 4).reshape(count, -1, 3 * side * side)
    return flat.float() / 127.5 - 1.0


class AnswerModel(nn.Module):
    """The language model over packed prompts; compiled once per shape when asked to."""

    def __init__(self, model: LlavaForConditionalGeneration, *, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self._core = torch.compile(self._run, dynamic=False) if compiled else self._run

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run as written for a while: other shapes than those of training need no compiling."""
        core, self._core = self._core, self._run
        try:
            yield
        finally:
            self._core = core

    def _run(
        self, embeddings: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor,
        rows: torch.Tensor, columns: torch.Tensor,
    ) -> torch.Tensor:
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden[rows, columns])

    def forward(
        self, features: torch.Tensor, ids: torch.Tensor, image_slots: torch.Tensor,
        positions: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor,
    ) -> torch.Tensor:
        """
        Return (L, vocabulary) logits of the tokens that follow positions (rows, columns).

        `ids` (B, T) with pad on the right; `image_slots` (B, T) bool marks where the rows of
        `features` (sum of slots, width) go in order; `positions` (B, T) rotary positions.
        """
        embeddings = self.model.get_input_embeddings()(ids)
        flat = embeddings.reshape(-1, embeddings.shape[-1]).clone()
        flat[image_slots.reshape(-1)] = features.to(flat.dtype)
        length = ids.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        return self._core(flat.view_as(embeddings), positions, mask, rows, columns)


@torch.no_grad()
def initialise_patches(model: LlavaForConditionalGeneration, images: torch.Tensor) -> None:
    """
    Start the patch embedding from the principal components of real patches, about whitened.

    images: (N, H, W, 3) uint8. With random weights the table's grey fills every token, and small
    coloured things are found ten times later.
    """
    convolution = model.model.vision_tower.embeddings.patch_embedding
    side, width = convolution.kernel_size[0], convolution.out_channels
    patches = _patches(images, side).flatten(0, 1)
    mean = patches.mean(dim=0)
    variance, axes = torch.linalg.eigh(torch.cov(patches.T))
    variance, axes = variance[-width:].flip(0), axes[:, -width:].flip(1)
    scale = (variance + _WHITEN_FLOOR * variance[0]).rsqrt()
    weight = (axes * scale).T
    convolution.weight.copy_(weight.view_as(convolution.weight))
    convolution.bias.copy_(-weight @ mean)
