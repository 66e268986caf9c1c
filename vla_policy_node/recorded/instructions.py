"""What the robot was told at a time."""

from typing import Protocol

import numpy as np

from vla_policy_node.recorded.messages import Column


class Instructions(Protocol):
    """
    The words that held.

    stamped: whether times are stamps of headers, otherwise times of receipt.
    """

    stamped: bool

    def at(self, times_ns: np.ndarray) -> list[str]:
        """Return the words at each of (N,) times, '' where there were none."""


class FixedInstruction:
    """The same words all the time."""

    stamped = True

    def __init__(self, text: str) -> None:
        self._text = text

    def at(self, times_ns: np.ndarray) -> list[str]:
        """See Instructions."""
        return [self._text] * len(times_ns)


class SaidInstructions:
    """
    Words of a topic.

    before: True takes the newest words said at or before a time, as people speak before the robot
    moves; False the first ones at or after it (or the last of all), as a policy sends its status
    behind each answer.
    """

    def __init__(self, column: Column, *, before: bool) -> None:
        times = column.times_ns()
        order = np.argsort(times, kind='stable')
        self.stamped = column.stamped
        self._times_ns = times[order]
        self._texts = [column.items[place] for place in order]
        self._before = before

    def at(self, times_ns: np.ndarray) -> list[str]:
        """See Instructions."""
        if not self._texts:
            return [''] * len(times_ns)
        if self._before:
            places = np.searchsorted(self._times_ns, times_ns, side='right') - 1
            return [self._texts[place] if place >= 0 else '' for place in places]
        places = np.searchsorted(self._times_ns, times_ns, side='left')
        return [self._texts[place] for place in np.minimum(places, len(self._texts) - 1)]
