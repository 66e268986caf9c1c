"""The output head of a model, cut to the rows that can be asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vla_policy_node.policy.types import PolicyError


class CutHead:
    """
    The output head of a model, cut to some of its rows while it is in use.

    :param token_ids: (M,) int64 sorted, the ids that are ever asked for.
    :param cut_ids: (C,) int64, those whose rows are kept when ``whole`` is False.

    ``whole`` may be set between two calls of the model.
    """

    def __init__(self, model: nn.Module, token_ids: np.ndarray, cut_ids: np.ndarray) -> None:
        """Copy the rows of cut_ids; raise PolicyError if an id is no row."""
        self.whole = False
        self._head = model.get_output_embeddings()
        if not isinstance(self._head, nn.Linear) or not self._head.weight.is_floating_point():
            raise PolicyError(
                'expected the output head to be an unquantised linear layer, '
                f'found {type(self._head).__name__}'
            )
        self._rows = self._head.weight.shape[0]
        if token_ids[0] < 0 or token_ids[-1] >= self._rows:
            raise PolicyError(
                f'the action tokens are ids {token_ids[0]}..{token_ids[-1]}, but the model knows '
                f'only ids 0..{self._rows - 1}; give the tokenizer section ids of this vocabulary'
            )
        self._cut_ids = cut_ids
        index = torch.tensor(cut_ids, device=self._head.weight.device)
        self._weight = self._head.weight.detach().index_select(0, index)
        bias = self._head.bias
        self._bias = None if bias is None else bias.detach().index_select(0, index)

    @property
    def width(self) -> int:
        """How many logits the head gives as it is now."""
        return self._rows if self.whole else self._cut_ids.size

    def columns(self, token_ids: np.ndarray) -> np.ndarray:
        """Return (m,) int64, where the logits of ids are in what the head gives as it is now."""
        return token_ids if self.whole else np.searchsorted(self._cut_ids, token_ids)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """
        Let the model compute only the cut rows.

        The model's own code still runs around the head, so a soft cap or a scale is kept.
        """
        self._head.forward = self._forward
        try:
            yield
        finally:
            del self._head.forward

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, D) hidden states -> (B, T, C) logits, or of every id of the vocabulary."""
        if self.whole:
            return functional.linear(hidden, self._head.weight, self._head.bias)
        return functional.linear(hidden, self._weight, self._bias)
