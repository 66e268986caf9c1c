"""
What the last layer computes for a prompt, cut to the one token whose logits are read.

Later tokens need the keys and values of every prompt token, but nobody reads what the last layer's
MLP makes of any but the last. In a model of L layers that is about 0.8 / L of a prompt's work.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vla_policy_node.policy.parts import language_model


class LastLayer:
    """The MLP of a model's last layer, where the model has one under that name."""

    def __init__(self, model: nn.Module) -> None:
        layers = getattr(language_model(model), 'layers', None)
        self._mlp = getattr(layers[-1], 'mlp', None) if layers else None

    @contextmanager
    def for_last_token(self) -> Iterator[None]:
        """
        Let the MLP see the last token only.

        What it returns, (1, 1, D), is then added to the residuals of all tokens, which is right
        for the last one and of no use for the others: only the last one's logits may be read.
        """
        if self._mlp is None:
            yield
            return
        whole = self._mlp.forward
        self._mlp.forward = lambda hidden: whole(_last(hidden))
        try:
            yield
        finally:
            del self._mlp.forward


def _last(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[:, -1:]
