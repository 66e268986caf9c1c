"""The gripper at the end of a period, where the actions themselves do not say it."""

from typing import Protocol

import numpy as np

from vla_policy_node.recorded.config import FixedGripper
from vla_policy_node.recorded.config import JointGripper
from vla_policy_node.recorded.config import NumberGripper
from vla_policy_node.recorded.messages import Column


class Gripper(Protocol):
    """
    Where the gripper was, or was told to be.

    stamped: whether times are stamps of headers, otherwise times of receipt.
    """

    stamped: bool

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """Return (N,) float64 at (N,) times, 0 closed to 1 open, NaN where not known."""


class SteadyGripper:
    """A gripper of which nothing was recorded."""

    stamped = True

    def __init__(self, config: FixedGripper) -> None:
        self._opening = config.opening

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """See Gripper."""
        return np.full(len(times_ns), self._opening)


class HeldGripper:
    """
    The newest message at or before a time; before the first one, `initial` of the configuration.

    A command is often sent once and holds until the next, so nothing makes it too old.
    """

    def __init__(self, column: Column, config: JointGripper | NumberGripper) -> None:
        times = column.times_ns()
        order = np.argsort(times, kind='stable')
        self.stamped = column.stamped
        self._times_ns = times[order]
        share = (column.values[order, 0] - config.closed) / (config.open - config.closed)
        opening = np.where(np.isfinite(share), np.clip(share, 0.0, 1.0), np.nan)
        initial = config.initial if isinstance(config, NumberGripper) else None
        self._opening = np.append(opening, np.nan if initial is None else initial)

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """See Gripper."""
        # Place -1, before the first message, is the last one: `initial`.
        return self._opening[np.searchsorted(self._times_ns, times_ns, side='right') - 1]


def build_gripper(
    column: Column | None, config: JointGripper | NumberGripper | FixedGripper,
) -> Gripper:
    """Return the gripper that the messages of its topic say."""
    if isinstance(config, FixedGripper):
        return SteadyGripper(config)
    return HeldGripper(column, config)
