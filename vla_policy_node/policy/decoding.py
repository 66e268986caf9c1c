"""
Constrained decoding: prefill once, then exactly as many legal tokens as an action needs.

Knows token ids and logits; knows nothing of images, prompts or physical units. The output head
is cut to the rows that can be legal, which is exact: the softmax among the legal ids does not
depend on the others. Only while a free-text plan is written is the whole head computed. A forced
token (only one id is legal) costs no step of its own: it enters the cache together with the next
token that has to be chosen.

Where the legal ids of every place are known beforehand, tokens are chosen where the model
computes, and no value is asked for before the last one. On a GPU the whole of it is then replayed
as CUDA graphs.
"""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.choosing import Chooser
from vla_policy_node.policy.choosing import DECODINGS
from vla_policy_node.policy.choosing import N_BAD
from vla_policy_node.policy.choosing import PROBABILITY
from vla_policy_node.policy.choosing import TOKEN
from vla_policy_node.policy.choosing import VALUE
from vla_policy_node.policy.cuda_graphs import Clock
from vla_policy_node.policy.cuda_graphs import graph_maker_for
from vla_policy_node.policy.cuda_graphs import GraphMaker
from vla_policy_node.policy.fixed_loop import FixedLoop
from vla_policy_node.policy.fixed_loop import FixedPlaces
from vla_policy_node.policy.output_head import CutHead
from vla_policy_node.policy.prompt_state import CacheShelf
from vla_policy_node.policy.prompt_state import Inputs
from vla_policy_node.policy.prompt_state import prompt_key
from vla_policy_node.policy.prompt_state import PromptState
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.token_automaton import Cursor

__all__ = ['ConstrainedDecoder', 'DECODINGS', 'Decoding']

# Prompts whose preparation is kept, the latest ones; the caches are shared between them.
_KEPT_PROMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """
    One decoded sequence.

    :param token_ids: (T,) int64, legal from the first to the last.
    :param probabilities: (T,) float32, of each token among those legal at its place.
    :param values: (T,) float64, the expected bin value; NaN where it is not asked for.
    :param prefill_ms: until the first logits, vision included.
    :param decode_ms: the rest.
    """

    token_ids: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray
    prefill_ms: float
    decode_ms: float


class ConstrainedDecoder:
    """
    Decodes actions with one model and one action tokenizer, one at a time.

    The model is any that ``generate`` of transformers can drive: transformers prepares positions
    and masks, once per prompt, and this class keeps the cache and chooses the tokens.
    """

    def __init__(
        self, model: nn.Module, tokenizer: ActionTokenizer, decoding: str = 'greedy', *,
        temperature: float = 1.0, seed: int = 0, graphs: GraphMaker | None = None,
        fixed_shapes: bool | None = None,
    ) -> None:
        """
        Cut the head; raise PolicyError if the tokens or the decoding do not fit.

        :param decoding: 'greedy', 'expectation' or 'sample'.
        :param temperature: of 'sample', above 0; seed: of its chance.
        :param graphs: records work for replay; None for CUDA graphs on a GPU, none on a CPU.
        :param fixed_shapes: the cache that graphs need; None for where there are graphs.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._chooser = Chooser(tokenizer, decoding, temperature, model.device)
        self._head = CutHead(model, tokenizer.token_ids, tokenizer.choice_ids)
        self._graphs = graphs or graph_maker_for(model.device)
        self._places = None
        if tokenizer.fixed_places is not None:
            self._places = FixedPlaces(tokenizer, self._head, self._chooser)
        if fixed_shapes is None:
            fixed_shapes = self._graphs is not None and self._places is not None
        self._caches = CacheShelf(model, fixed_shapes)
        self._random = torch.Generator().manual_seed(seed)
        self._prompts: OrderedDict[tuple, PromptState | FixedLoop] = OrderedDict()

    def decode(self, inputs: Inputs) -> Decoding:
        """
        Decode one action.

        :param inputs: what the processor made of a prompt and its images, a batch of one.
        :raises DecodeError: a logit of a legal token is not finite.
        :raises PromptLengthError: the prompt is longer than the model has room for.
        """
        clock = Clock(self._model.device)
        with self._computing():
            prompt = self._prompt(inputs)
            if isinstance(prompt, FixedLoop):
                rows = prompt.run(_pixels(inputs), self._random, clock)
                _check_finite(rows, prompt.state, self._places.sizes)
            else:
                rows = self._choose_freely(prompt, _pixels(inputs), clock)
        prefill_ms, decode_ms = clock.parts_ms()
        return Decoding(
            token_ids=rows[:, TOKEN].astype(np.int64),
            probabilities=rows[:, PROBABILITY].astype(np.float32),
            values=rows[:, VALUE], prefill_ms=prefill_ms, decode_ms=decode_ms)

    def first_logits(self, inputs: Inputs) -> np.ndarray:
        """
        Return the (M,) float32 logits of the first token.

        Over ``tokenizer.token_ids`` where a plan in free text comes first, otherwise over
        ``tokenizer.choice_ids``, which are the same without one.
        """
        with self._computing():
            prompt = self._prompt(inputs)
            state = prompt.state if isinstance(prompt, FixedLoop) else prompt
            self._head.whole = self._tokenizer.start().kind == 'text'
            logits = state.prefill(_pixels(inputs)).float().cpu().numpy()
        return logits[self._tokenizer.token_ids] if self._head.whole else logits

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Let the model compute what is needed, and nothing for a backward pass."""
        with torch.inference_mode(), self._head.in_use():
            self._head.whole = False
            yield

    def _prompt(self, inputs: Inputs) -> PromptState | FixedLoop:
        """Return what is kept of a prompt, or prepare it."""
        key = prompt_key(inputs)
        if key not in self._prompts:
            self._prompts[key] = self._prepare(inputs)
            while len(self._prompts) > _KEPT_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _prepare(self, inputs: Inputs) -> PromptState | FixedLoop:
        state = PromptState(
            self._model, self._head, inputs, self._caches, self._tokenizer.max_length)
        if self._places is None:
            return state
        return FixedLoop(self._places, state, self._graphs, self._model.device)

    def _choose_freely(self, state: PromptState, pixels: Inputs, clock: Clock) -> np.ndarray:
        """Choose tokens until the automaton is complete, asking for each before the next."""
        cursor = self._tokenizer.start()
        self._head.whole = cursor.kind == 'text'
        logits = state.prefill(pixels)
        clock.mark()
        rows: list[list[float]] = []
        fed = 0
        while (legal := cursor.legal).size:
            row = [float(legal[0]), 1.0, np.nan, 0.0]
            if legal.size > 1:
                self._head.whole = cursor.kind == 'text'
                if len(rows) > fed:
                    ids = torch.tensor([int(row[TOKEN]) for row in rows[fed:]])
                    logits = state.advance(ids.to(logits.device), fed)
                    fed = len(rows)
                row = self._choose(logits, cursor)
                _check_finite(np.array([row]), state, [legal.size], len(rows))
            rows.append(row)
            cursor.advance(int(row[TOKEN]))
        clock.mark()
        return np.array(rows)

    def _choose(self, logits: torch.Tensor, cursor: Cursor) -> list[float]:
        """Choose the next token; the row that `Chooser.choose` gives."""
        legal, kind = cursor.legal, cursor.kind
        candidates = self._chooser.prepare(legal, self._head.columns(legal), kind)
        noise = None
        if self._chooser.draws(kind):
            noise = self._chooser.noise(1, legal.size, self._random)[0]
        return self._chooser.choose(logits, candidates, noise).tolist()


def _pixels(inputs: Inputs) -> Inputs:
    """Return the inputs that differ from frame to frame."""
    return {name: value for name, value in inputs.items() if value.is_floating_point()}


def _check_finite(
    rows: np.ndarray, state: PromptState, sizes: Sequence[int], first: int = 0,
) -> None:
    """Raise DecodeError, with the cache cleared, if a legal logit is not finite."""
    bad = np.flatnonzero(rows[:, N_BAD])
    if bad.size:
        state.wipe()
        raise DecodeError(
            f'token {first + bad[0]}: {int(rows[bad[0], N_BAD])} of {sizes[bad[0]]} legal logits '
            'are not finite; check the weights and the dtype')
