"""
Constrained decoding: prefill once, then exactly as many legal tokens as an action needs.

Knows token ids and logits; knows nothing of images, prompts or physical units. The output head
is cut to the rows that can be legal, which is exact: the softmax among the legal ids does not
depend on the others. Only while a free-text plan is written is the whole head computed. A forced
token (only one id is legal) costs no step of its own: it enters the cache together with the next
token that has to be chosen.

Expectation decoding takes, per action dimension, the mean of the bin values weighted by their
probability, and feeds the bin nearest to that mean back to the model, so that what the model
continues from is the action that is executed. Plans and flags are always chosen greedily: the mean
of two pointed-at objects points at neither.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.token_automaton import Cursor

DECODINGS = ('greedy', 'expectation')


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """
    One decoded sequence.

    :param token_ids: (T,) int64, legal from the first to the last.
    :param probabilities: (T,) float32, of each token among those legal at its place.
    :param values: (T,) float64, the expected bin value; NaN where the token was chosen greedily.
    :param prefill_ms: until the first logits, vision included.
    :param decode_ms: the rest.
    """

    token_ids: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray
    prefill_ms: float
    decode_ms: float


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
        self.rows = rows = self._head.weight.shape[0]
        if token_ids[0] < 0 or token_ids[-1] >= rows:
            raise PolicyError(
                f'the action tokens are ids {token_ids[0]}..{token_ids[-1]}, but the model knows '
                f'only ids 0..{rows - 1}; give the tokenizer section ids of this vocabulary'
            )
        index = torch.tensor(cut_ids, device=self._head.weight.device)
        self._weight = self._head.weight.detach().index_select(0, index)
        bias = self._head.bias
        self._bias = None if bias is None else bias.detach().index_select(0, index)

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


class ConstrainedDecoder:
    """
    Decodes actions with one model and one action tokenizer.

    The model is any that ``generate`` of transformers can drive: transformers prepares positions,
    masks and the cache, and this class chooses the tokens.
    """

    def __init__(
        self, model: nn.Module, tokenizer: ActionTokenizer, decoding: str = 'greedy'
    ) -> None:
        """Cut the head; raise PolicyError if the tokens or the decoding do not fit."""
        if decoding not in DECODINGS:
            raise PolicyError(
                f'expected decoding to be one of {", ".join(DECODINGS)}, found {decoding!r}'
            )
        if decoding == 'expectation' and tokenizer.bin_token_ids is None:
            raise PolicyError(
                'expectation decoding needs one token per bin, but this tokenizer writes a bin '
                'as several tokens; use decoding greedy'
            )
        self._model = model
        self._tokenizer = tokenizer
        self._expectation = decoding == 'expectation'
        self._head = CutHead(model, tokenizer.token_ids, tokenizer.choice_ids)
        self._value_of = _bin_values(tokenizer) if self._expectation else None
        # One beam, whatever the checkpoint's generation_config says.
        self._config = GenerationConfig(
            max_new_tokens=tokenizer.max_length,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            eos_token_id=None,
            pad_token_id=0,
        )

    def decode(self, inputs: Mapping[str, torch.Tensor]) -> Decoding:
        """
        Decode one action.

        :param inputs: what the processor made of a prompt and its images, a batch of one.
        :raises DecodeError: a logit of a legal token is not finite.
        """
        start = perf_counter()
        return self._generate(inputs, lambda *args, **kwargs: self._loop(start, *args, **kwargs))

    def first_logits(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """
        Return the (M,) float32 logits of the first token.

        Over ``tokenizer.token_ids`` where a plan in free text comes first, otherwise over
        ``tokenizer.choice_ids``, which are the same without one.
        """
        logits = self._generate(
            inputs, lambda *args, **kwargs: self._prefill(*args, **kwargs).logits()
        )
        return logits[self._tokenizer.token_ids] if self._head.whole else logits

    def _generate(self, inputs: Mapping[str, torch.Tensor], loop: Callable) -> Any:
        """Let transformers prepare the inputs and call the loop."""
        with torch.inference_mode(), self._head.in_use():
            return self._model.generate(
                **inputs, generation_config=self._config, custom_generate=loop
            )

    def _prefill(self, *args: Any, **kwargs: Any) -> '_Steps':
        """Run the prompt through the model, with the head that the first token needs."""
        self._head.whole = self._tokenizer.start().kind == 'text'
        return _Steps(*args, **kwargs)

    def _loop(self, start: float, *args: Any, **kwargs: Any) -> Decoding:
        """Choose tokens until the automaton is complete; called by ``generate``."""
        steps = self._prefill(*args, **kwargs)
        prefill_end = perf_counter()
        cursor = self._tokenizer.start()
        produced: list[int] = []
        chosen: list[tuple[float, float]] = []
        while (legal := cursor.legal).size:
            if legal.size == 1:
                token_id, probability, value = int(legal[0]), 1.0, np.nan
            else:
                self._head.whole = cursor.kind == 'text'
                token_id, probability, value = self._choose(steps.logits(), cursor)
            steps.append(token_id)
            produced.append(token_id)
            chosen.append((probability, value))
            cursor.advance(token_id)
        probabilities, values = np.array(chosen, np.float64).T
        return Decoding(
            token_ids=np.array(produced, np.int64),
            probabilities=probabilities.astype(np.float32),
            values=values,
            prefill_ms=1e3 * (prefill_end - start),
            decode_ms=1e3 * (perf_counter() - prefill_end),
        )

    def _choose(self, logits: np.ndarray, cursor: Cursor) -> tuple[int, float, float]:
        """Return token id, its probability among the legal, and the expected value or NaN."""
        scores = self._legal_scores(logits, cursor)
        if not np.isfinite(scores).all():
            raise DecodeError(
                f'token {cursor.n_tokens}: {np.count_nonzero(~np.isfinite(scores))} of '
                f'{scores.size} legal logits are not finite; check the weights and the dtype'
            )
        probabilities = np.exp(scores - scores.max(), dtype=np.float64)
        probabilities /= probabilities.sum()
        value = np.nan
        best = int(np.argmax(scores))
        if self._expectation and cursor.kind == 'action':
            value, best = self._expected_bin(cursor.legal, probabilities)
        return int(cursor.legal[best]), float(probabilities[best]), value

    def _legal_scores(self, logits: np.ndarray, cursor: Cursor) -> np.ndarray:
        """Return the logits of the legal ids; DecodeError if there are not as many as expected."""
        expected = self._head.rows if self._head.whole else self._tokenizer.choice_ids.size
        if logits.size != expected:
            raise DecodeError(
                f'expected {expected} logits from the output head, found {logits.size}; '
                'this model does not use its output embeddings as its head'
            )
        if self._head.whole:
            return logits[cursor.legal]
        return logits[np.searchsorted(self._tokenizer.choice_ids, cursor.legal)]

    def _expected_bin(
        self, legal: np.ndarray, probabilities: np.ndarray
    ) -> tuple[float, int]:
        """Return the expected value and the place in ``legal`` of the bin nearest to it."""
        values = self._value_of[np.searchsorted(self._tokenizer.choice_ids, legal)]
        value = float(probabilities @ values)
        return value, int(np.argmin(np.abs(values - value)))


class _Steps:
    """The model, its cache, and the tokens that are chosen but not yet in the cache."""

    def __init__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        *,
        generation_config: GenerationConfig,
        logits_processor: Any,
        stopping_criteria: Any,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> None:
        """Run the prompt through the model; the arguments are those ``generate`` passes."""
        del logits_processor, stopping_criteria, synced_gpus
        self._model = model
        self._input_ids = input_ids
        self._model_kwargs = model_kwargs
        self._pending: list[int] = []
        self._outputs = model._prefill(input_ids, generation_config, model_kwargs)

    def append(self, token_id: int) -> None:
        """Add a token; it enters the cache when logits are next asked for."""
        self._pending.append(token_id)

    def logits(self) -> np.ndarray:
        """Return the float32 logits of what follows the tokens so far, as the head is cut."""
        if self._pending:
            self._advance()
        return self._outputs.logits[0, -1].float().cpu().numpy()

    def _advance(self) -> None:
        """Run the pending tokens through the model, in one call."""
        added = self._input_ids.new_tensor([self._pending])
        self._input_ids = torch.cat([self._input_ids, added], dim=-1)
        self._model_kwargs = self._model._update_model_kwargs_for_generation(
            self._outputs, self._model_kwargs, num_new_tokens=len(self._pending)
        )
        inputs = self._model.prepare_inputs_for_generation(
            self._input_ids, next_sequence_length=len(self._pending), **self._model_kwargs
        )
        self._outputs = self._model(**inputs, return_dict=True)
        self._pending = []


def _bin_values(tokenizer: ActionTokenizer) -> np.ndarray:
    """Return (C,) float64, the value of each of ``tokenizer.choice_ids``; NaN if it is no bin."""
    values = np.full(tokenizer.choice_ids.size, np.nan)
    values[np.searchsorted(tokenizer.choice_ids, tokenizer.bin_token_ids)] = tokenizer.bin_values
    return values
