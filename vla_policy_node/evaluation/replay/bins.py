"""Actions as the bins of a checkpoint's own tokens."""

import numpy as np

from vla_policy_node.action_bins import EVEN_BINS
from vla_policy_node.action_bins import OPENVLA_BINS
from vla_policy_node.action_bins import RT1_LEVELS
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.evaluation.replay.results import NO_BIN

_QUANTIZERS = (EVEN_BINS, OPENVLA_BINS, RT1_LEVELS)


class ActionBins:
    """The way from canonical actions and from token ids to bins."""

    def __init__(self, space: ActionSpace, tokenizer: ActionTokenizer) -> None:
        self._space = space
        self._tokenizer = tokenizer
        self._quantizer = next(
            each for each in _QUANTIZERS if each.values is tokenizer.bin_values)

    def of_actions(self, actions: np.ndarray) -> np.ndarray:
        """
        Return the bins (..., 7) int64 that canonical actions (..., 7) are encoded as.

        An action with a NaN in it has bins -1.
        """
        known = np.isfinite(actions).all(axis=-1, keepdims=True)
        physical = from_canonical(np.where(known, actions, 0.0), self._space)
        bins = self._quantizer.encode(self._space.stats.normalize(physical))
        return np.where(known, bins, NO_BIN)

    def of_tokens(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the bins (K, 7) int64 of a whole sequence (T,) of token ids."""
        return self._tokenizer.decode(token_ids).bins
