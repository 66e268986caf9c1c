"""What the simulator knows about a moment; for the expert, the judge and question generators."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneState:
    """
    The privileged state of the scene; a policy never sees it.

    :param blocks: colour -> (3,) float64 centre of each block on the table, metres in `base`.
    :param tool: (3,) float64 tool point between the finger tips, metres in `base`.
    :param gripper: opening, 0 closed to 1 open.
    :param held: colour of the block that both fingers touch, or None.
    :param last_contact_s: colour -> time at which the gripper last touched that block.
    :param time_s: simulated time since the reset.
    """

    blocks: Mapping[str, np.ndarray]
    tool: np.ndarray
    gripper: float
    held: str | None
    last_contact_s: Mapping[str, float]
    time_s: float
