"""
The loss of answers, computed only where an answer is.

The output head sees the hidden states that predict answer tokens and no others: of a prompt of
hundreds of image tokens and a vocabulary of a hundred thousand words that is a few rows in place
of gigabytes. Everything goes through one forward, so DDP and FSDP may wrap it.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vla_policy_node.action_bins import N_BINS


class AnswerLosses(NamedTuple):
    """
    Of N answer tokens: (N,) float32 losses and (N,) int64 likeliest ids.

    likeliest_bins: (N,) int64, the likeliest of the 256 bins; only meaningful where an action is
    written, and zeros where numbers take several tokens. Training asks for neither: both are
    zeros while gradients are recorded.
    """

    losses: torch.Tensor
    likeliest: torch.Tensor
    likeliest_bins: torch.Tensor


class AnswerModel(nn.Module):
    """
    A model of transformers whose forward returns the losses of answer tokens.

    bin_token_ids: (256,) ids of the bins, None where they take several tokens. sigma_bins:
    spread of a number label over its neighbours, 0 for one-hot.
    """

    def __init__(
        self, model: nn.Module, bin_token_ids: np.ndarray | None, sigma_bins: float = 0.0
    ) -> None:
        super().__init__()
        if sigma_bins > 0.0 and bin_token_ids is None:
            raise ValueError(
                f'training.label_sigma_bins: expected 0 where numbers take several tokens, found '
                f'{sigma_bins}; neighbours are only known to schemes of one token per number')
        self.model = model
        # What FSDP may put into one piece; it refuses names of classes that a model lacks.
        present = {type(module).__name__ for module in model.modules()}
        self._no_split_modules = sorted(present & set(model._no_split_modules or ()))
        # Buffers would be broadcast and cast by the wrappers; these are constants.
        self._bin_ids = None if bin_token_ids is None else torch.tensor(bin_token_ids)
        self._spread = _neighbourhoods(sigma_bins) if sigma_bins > 0.0 else None

    def forward(
        self, inputs: Mapping[str, torch.Tensor], rows: torch.Tensor, columns: torch.Tensor,
        labels: torch.Tensor, bins: torch.Tensor,
    ) -> AnswerLosses:
        """Compute the losses of one batch; see collate.Batch."""
        with self._only(rows, columns):
            logits = self.model(**inputs, use_cache=False).logits[0].float()
        losses = functional.cross_entropy(logits, labels, reduction='none')
        if self._spread is not None:
            spread = self._spread.to(labels.device)[bins.clamp_min(0)]
            bin_ids = self._bin_ids.to(labels.device)
            soft = -(spread * logits.log_softmax(-1)[:, bin_ids]).sum(-1)
            losses = torch.where(bins >= 0, soft, losses)
        return AnswerLosses(losses, *self._likeliest(logits))

    def _likeliest(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the likeliest of all ids, and of the bins."""
        nothing = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        if torch.is_grad_enabled():
            return nothing, nothing
        if self._bin_ids is None:
            return logits.argmax(-1), nothing
        return logits.argmax(-1), logits[:, self._bin_ids.to(logits.device)].argmax(-1)

    @contextmanager
    def _only(self, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
        """Let the head see (1, N, D) in place of (B, T, D); scales and caps around it are kept."""
        def gather(_: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
            return (args[0][rows, columns][None], *args[1:])
        hook = self.model.get_output_embeddings().register_forward_pre_hook(gather)
        try:
            yield
        finally:
            hook.remove()


def _neighbourhoods(sigma: float) -> torch.Tensor:
    """Return (256, 256) float32: for each bin, the distribution over bins that is asked for."""
    place = np.arange(N_BINS)
    spread = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return torch.from_numpy((spread / spread.sum(axis=1, keepdims=True)).astype(np.float32))
