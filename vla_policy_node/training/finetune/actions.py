"""The normalised range that the model is trained in, of the actions of all sources."""

from collections.abc import Sequence

import numpy as np

from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_space import NormStats
from vla_policy_node.training.sources.records import RobotSource
from vla_policy_node.vla_config import ActionSpaceConfig


def statistics_of(sources: Sequence[RobotSource], space: ActionSpaceConfig) -> NormStats:
    """Compute q01 and q99 over the actions of all sources, in the convention of `space`."""
    return NormStats.from_actions(
        np.concatenate([from_canonical(source.actions(), space) for source in sources]))
