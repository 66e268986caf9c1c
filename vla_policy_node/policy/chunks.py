"""A decoded token sequence -> an ActionChunk in physical units; knows nothing of torch."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import Decoded
from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import DecodeError


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
) -> ActionChunk:
    """
    Return the sequence's action in canonical physical units.

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
        plan=plan_text(decoded.plan),
        terminate=decoded.terminate,
        timing_ms=timing_ms,
    )


def plan_text(plan: tuple[float, ...]) -> str:
    """
    Return a pointing plan in words, 'at 0.47 0.81': u right and v down, share of the image.

    :param plan: values in [-1, 1], where -1 is the left or upper edge; () gives ''.
    """
    if not plan:
        return ''
    return ' '.join(['at', *(f'{(value + 1.0) / 2.0:.2f}' for value in plan)])


def _confidence(probabilities: np.ndarray, decoded: Decoded) -> np.ndarray:
    """Return (K, 7) float32: a bin's probability is the product of those of its tokens."""
    products = [probabilities[start:end].prod() for start, end in decoded.spans.reshape(-1, 2)]
    return np.array(products, np.float32).reshape(decoded.bins.shape)
