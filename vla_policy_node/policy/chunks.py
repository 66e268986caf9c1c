"""A decoded token sequence -> an ActionChunk in physical units; knows nothing of torch."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol
import unicodedata

import numpy as np

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import Decoded
from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.vla_config import TokenizerConfig

# Of a plan in free text: what a status line and a caption can show.
MAX_PLAN_CHARACTERS = 200


class TokenSequence(Protocol):
    """The part of a decoding that an action is made of; see decoding.Decoding."""

    token_ids: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray


def build_chunk(
    sequence: TokenSequence,
    tokenizer: ActionTokenizer,
    action_space: ActionSpace,
    timing_ms: Mapping[str, float],
    describe: Callable[[Decoded], str] | None = None,
) -> ActionChunk:
    """
    Return the sequence's action in canonical physical units.

    :param describe: puts the plan into words; None leaves it ''.
    :raises DecodeError: the sequence is not one the tokenizer allows.
    """
    try:
        decoded = tokenizer.decode(sequence.token_ids)
    except ValueError as error:
        raise DecodeError(f'the decoded tokens are no action: {error}') from error
    normalized = decoded.actions
    token_ids = sequence.token_ids
    if tokenizer.bin_token_ids is not None:
        starts = decoded.spans[..., 0]
        token_ids = sequence.token_ids[starts]
        expected = sequence.values[starts]
        normalized = np.where(np.isnan(expected), normalized, expected)
    return ActionChunk(
        actions=action_space.to_canonical(action_space.stats.unnormalize(normalized)),
        token_ids=token_ids,
        all_token_ids=sequence.token_ids,
        confidence=_confidence(sequence.probabilities, decoded),
        plan=describe(decoded) if describe else '',
        terminate=decoded.terminate,
        timing_ms=timing_ms,
    )


class PlanDescription:
    """Puts a decoded plan into words; callable with a Decoded."""

    def __init__(self, config: TokenizerConfig, decode: Callable[[Sequence[int]], str]) -> None:
        """Take the layout of plans; decode: ids of free text -> text."""
        self._words = config.plan_words or ()
        self._decode = decode

    def __call__(self, decoded: Decoded) -> str:
        """
        Return 'pick up the red block', 'red block at 0.47 0.81' or the like; '' without a plan.

        The free text as one clean line, then the words, then the numbers as shares of the image
        (u right and v down for a position): -1 is the left or upper edge.
        """
        text = [clean_plan(self._decode(list(decoded.plan_ids)))] if decoded.plan_ids else []
        words = [choices[word].strip() for choices, word
                 in zip(self._words, decoded.plan_words, strict=True)]
        numbers = [f'{(value + 1.0) / 2.0:.2f}' for value in decoded.plan]
        if numbers and (not words or words[-1].split()[-1:] != ['at']):
            numbers.insert(0, 'at')
        return ' '.join(part for part in (*text, *words, *numbers) if part)


def clean_plan(text: str) -> str:
    """
    Return a model's text as one line of at most 200 characters, for people to read.

    White space becomes single spaces; controls, direction marks, surrogates and the like go.
    """
    kept = (c for c in text if c.isspace() or not unicodedata.category(c).startswith('C'))
    line = ' '.join(''.join(kept).split())
    if len(line) <= MAX_PLAN_CHARACTERS:
        return line
    return line[:MAX_PLAN_CHARACTERS - 1].rstrip() + '\u2026'


def _confidence(probabilities: np.ndarray, decoded: Decoded) -> np.ndarray:
    """Return (K, 7) float32: a bin's probability is the product of those of its tokens."""
    products = [probabilities[start:end].prod() for start, end in decoded.spans.reshape(-1, 2)]
    return np.array(products, np.float32).reshape(decoded.bins.shape)
