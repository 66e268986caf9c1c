"""A language model that computes nothing: its logits are what it is given, call by call."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig
from transformers import LlamaForCausalLM

PROMPT_IDS = (5, 6, 7)


class GivenModel(LlamaForCausalLM):
    """
    Everything around the forward pass is that of transformers; the head is still asked how wide
    it is, because the decoder cuts it.

    rows: (N, V) logits; call n of a sequence gives row n. choice_ids: what a cut head keeps.
    """

    def __init__(self, vocabulary: int, choice_ids: torch.Tensor) -> None:
        super().__init__(LlamaConfig(
            vocab_size=vocabulary, hidden_size=4, intermediate_size=4, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256))
        self.eval()
        self.rows = torch.zeros(1, vocabulary)
        self.calls = 0
        self._choice_ids = choice_ids
        self._hidden = torch.zeros(1, 1, 4)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the model itself: it has no vision tower."""
        return self

    def forward(self, pixel_values: torch.Tensor | None = None, **_: Any) -> SimpleNamespace:
        """Return the next row, cut as the head is; pixels begin a new sequence."""
        if pixel_values is not None:
            self.calls = 0
        row = self.rows[self.calls]
        self.calls += 1
        if self.lm_head(self._hidden).shape[-1] != len(row):
            row = row.index_select(0, self._choice_ids)
        return SimpleNamespace(logits=row[None, None])


def prompt_inputs() -> dict[str, torch.Tensor]:
    """Return what a processor makes of a prompt and a picture."""
    ids = torch.tensor([PROMPT_IDS])
    return {'input_ids': ids, 'attention_mask': torch.ones_like(ids),
            'pixel_values': torch.zeros(1)}
