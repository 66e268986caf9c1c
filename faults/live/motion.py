"""Judges the commands that a robot got by the oracle of the suite, which knows the limits only."""

from dataclasses import replace

import numpy as np

from faults.live.rig import COMMAND_RATE_HZ
from faults.live.watch import Watch
from faults.motion_oracle import MotionOracle
from faults.motion_oracle import Robot
from vla_policy_node.control import ControlParameters

# Between the tick that makes a command and its stamp: what sending may take (1 ms) and the time
# between two looks at two clocks.
_STAMP_S = 0.0012
_LATE_S = 2.0 / COMMAND_RATE_HZ
# The arm swings a little where it is stopped.
_SWING_M = 0.01
_SHIPPED = ControlParameters()
_LIMITS = replace(
    _SHIPPED,
    workspace_min_m=tuple(x - _SWING_M for x in _SHIPPED.workspace_min_m),
    workspace_max_m=tuple(x + _SWING_M for x in _SHIPPED.workspace_max_m))



def motion_faults(watch: Watch, *, by_receipt: bool = False) -> list[str]:
    """
    Return what exceeded a limit since the watch has forgotten: commands, and the tool's place.

    :param by_receipt: where the clock of the stamps is what is broken: take times of receipt, and
        grant every command the two periods that a late one is granted by the controller.
    """
    commands, poses = list(watch.commands), list(watch.poses)
    faults = []
    if commands:
        robot = Robot(poses[-1][1] if poses else (0.5, 0.0, 0.3))
        oracle = MotionOracle(_LIMITS, robot)
        # The first one is only where the second starts from.
        oracle.fault(commands[0], 1.0, may_move=True)
        for before, now in zip(commands[:-1], commands[1:], strict=True):
            if by_receipt:
                dt_s = max(_LATE_S, now.received_s - before.received_s)
            else:
                dt_s = max(0.0, now.stamp_s - before.stamp_s) + _STAMP_S
            fault = oracle.fault(now, dt_s, may_move=True)
            if fault:
                faults.append(fault)
    faults += [
        f'tool at {place.tolist()}, outside the workspace' for _, place in poses
        if not _is_inside(place)]
    return faults


def _is_inside(place: np.ndarray) -> bool:
    return all(low <= x <= high for low, x, high in zip(
        _LIMITS.workspace_min_m, place.tolist(), _LIMITS.workspace_max_m, strict=True))
