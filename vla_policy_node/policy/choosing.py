"""
Which of the legal tokens is taken: where the model computes, and without asking it for a value.

Expectation decoding takes, per action dimension, the mean of the bin values weighted by their
probability, and feeds the bin nearest to that mean back to the model, so that what the model
continues from is the action that is executed. Sampling draws in proportion to the probabilities
at a temperature, by adding noise to the logits (Gumbel-max). Plans and flags are always chosen
greedily: the mean of two pointed-at objects points at neither, and nothing ends by chance.
"""

import numpy as np
import torch

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.types import PolicyError

DECODINGS = ('greedy', 'expectation', 'sample')
# What `Chooser.choose` says of a token, in this order.
TOKEN, PROBABILITY, VALUE, N_BAD = range(4)


class Chooser:
    """Chooses tokens for one tokenizer on one device."""

    def __init__(
        self, tokenizer: ActionTokenizer, decoding: str, temperature: float,
        device: torch.device,
    ) -> None:
        """Check the decoding; PolicyError where the tokenizer does not allow it."""
        if decoding not in DECODINGS:
            raise PolicyError(
                f'expected decoding to be one of {", ".join(DECODINGS)}, found {decoding!r}')
        if decoding == 'expectation' and tokenizer.bin_token_ids is None:
            raise PolicyError(
                'expectation decoding needs one token per bin, but this tokenizer writes a bin '
                'as several tokens; use decoding greedy')
        if not (np.isfinite(temperature) and temperature > 0.0):
            raise PolicyError(f'expected a temperature above 0, found {temperature}; '
                              'use decoding greedy for no chance at all')
        self._decoding = decoding
        self._temperature = temperature
        self._device = device
        self._values_of = _bin_values(tokenizer) if decoding == 'expectation' else {}

    def draws(self, kind: str) -> bool:
        """Tell whether tokens of this kind are drawn."""
        return self._decoding == 'sample' and kind == 'action'

    def prepare(self, legal: np.ndarray, columns: np.ndarray, kind: str) -> 'Candidates':
        """Return what `choose` needs to know of a place, on the device."""
        values = None
        if self._decoding == 'expectation' and kind == 'action':
            values = self._tensor(np.array([self._values_of[int(token)] for token in legal]))
        return Candidates(
            columns=self._tensor(columns), token_ids=self._tensor(legal), values=values)

    def choose(
        self, logits: torch.Tensor, candidates: 'Candidates', noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Return (4,) float64: token id, its probability, expected value or NaN, logits not finite.

        :param logits: (C,) of the head as it is cut.
        :param noise: (m,) float32 Gumbel noise where the token is drawn.
        """
        scores = logits.index_select(0, candidates.columns).double()
        probabilities = torch.softmax(scores, 0)
        value = scores.new_full((1,), torch.nan)
        wanted = scores
        if noise is not None:
            wanted = scores / self._temperature + noise
        elif candidates.values is not None:
            value = (probabilities @ candidates.values).view(1)
            wanted = -(candidates.values - value).abs()
        best = wanted.argmax().view(1)
        return torch.cat([
            candidates.token_ids.gather(0, best).double(), probabilities.gather(0, best), value,
            (~scores.isfinite()).sum().view(1).double()])

    def noise(self, n_places: int, width: int, generator: torch.Generator) -> torch.Tensor:
        """Return (n_places, width) float64 Gumbel noise on the device."""
        uniform = torch.rand(n_places, width, generator=generator, dtype=torch.float64)
        tiny = torch.finfo(torch.float64).tiny
        return (-(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()).to(self._device)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self._device)


class Candidates:
    """
    The tokens that may come at one place, on the device.

    columns: (m,) int64, where their logits are. token_ids: (m,) int64. values: (m,) float64 of
    their bins where the mean of them is wanted, else None.
    """

    __slots__ = ('columns', 'token_ids', 'values')

    def __init__(
        self, columns: torch.Tensor, token_ids: torch.Tensor, values: torch.Tensor | None,
    ) -> None:
        self.columns = columns
        self.token_ids = token_ids
        self.values = values


def _bin_values(tokenizer: ActionTokenizer) -> dict[int, float]:
    """Return the value of every bin by its token id."""
    return dict(zip(tokenizer.bin_token_ids.tolist(), tokenizer.bin_values.tolist(), strict=True))
