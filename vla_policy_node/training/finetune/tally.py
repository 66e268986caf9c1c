"""
Sums over answer tokens: losses per source, accuracy per dimension, error of the actions.

Sums of several processes add up, so figures are made only at the end.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.training.finetune.examples import Example

DIMENSIONS = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper')


class Tally:
    """
    Figures of one validation.

    actions: whose numbers are compared. majority: (7,) int64, the most frequent bin of each
    dimension in the training data.
    """

    def __init__(self, actions: ActionTokenizer, majority: np.ndarray) -> None:
        self._actions = actions
        self._majority = majority
        self.sums: Counter[tuple[str, str]] = Counter()

    def add(
        self, source: str, example: Example, losses: np.ndarray, likeliest: np.ndarray,
        likeliest_bins: np.ndarray,
    ) -> None:
        """Add one example's tokens, (A,) each; see objective.AnswerLosses."""
        self.sums['loss', source] += float(losses.sum())
        self.sums['tokens', source] += len(losses)
        right = likeliest == example.answer
        if example.kind == 'text':
            # Greedy generation gives this answer if and only if every one of its tokens is the
            # likeliest after the right ones before it.
            self.sums['exact', 'answers'] += int(right.all())
            self.sums['count', 'answers'] += 1
            return
        numbers = self._actions.decode(example.answer)
        for step, dimension in np.ndindex(numbers.bins.shape):
            start, end = numbers.spans[step, dimension]
            name, wanted = DIMENSIONS[dimension], numbers.bins[step, dimension]
            self.sums['count', name] += 1
            self.sums['right', name] += int(right[start:end].all())
            self.sums['majority', name] += int(wanted == self._majority[dimension])
            if self._actions.bin_token_ids is not None:
                value = self._actions.bin_values[likeliest_bins[start]]
                self.sums['error', name] += abs(value - example.wanted[step, dimension])

    def figures(self) -> dict[str, dict[str, float]]:
        """Return loss, token_accuracy, majority_accuracy, l1_normalised and answers."""
        sums = self.sums
        sources = sorted(name for kind, name in sums if kind == 'tokens')
        figures = {'loss': {'all': _ratio(sums, 'loss', 'tokens', sources), **{
            name: _ratio(sums, 'loss', 'tokens', [name]) for name in sources}}}
        if sums['count', DIMENSIONS[0]]:
            figures['token_accuracy'] = _per_dimension(sums, 'right')
            figures['majority_accuracy'] = _per_dimension(sums, 'majority')
            if self._actions.bin_token_ids is not None:
                figures['l1_normalised'] = _per_dimension(sums, 'error')
        if sums['count', 'answers']:
            figures['answers'] = {
                'exact_match': _ratio(sums, 'exact', 'count', ['answers']),
                'count': sums['count', 'answers']}
        return figures


def majority_bins(bins: np.ndarray) -> np.ndarray:
    """(N, 7) int64 bins -> (7,) int64: the most frequent of each dimension."""
    return np.array([np.bincount(bins[:, d]).argmax() for d in range(ACTION_DIM)])


def _per_dimension(sums: Counter, kind: str) -> dict[str, float]:
    return {**{name: _ratio(sums, kind, 'count', [name]) for name in DIMENSIONS},
            'all': _ratio(sums, kind, 'count', DIMENSIONS)}


def _ratio(sums: Counter, above: str, below: str, names: Sequence[str]) -> float:
    return total(sums, above, names) / total(sums, below, names)


def total(sums: Counter, kind: str, names: Iterable[str]) -> float:
    """Return the sum of one kind over several names."""
    return sum(sums[kind, name] for name in names)
