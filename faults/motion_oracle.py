"""
What a controller may command, judged from its commands alone.

Knows the limits as numbers and where the tool is; shares no code with the controller. The robot
here does exactly what it is told, so its position is the sum of all commands.
"""

import math
from typing import Any

import numpy as np

TOLERANCE = 1e-9
# Angles of a target pose come out of products of quaternions.
_ANGLE_TOLERANCE = 1e-6


class Robot:
    """A tool that follows every command exactly, and two clocks [s]."""

    def __init__(self, position: np.ndarray) -> None:
        self.position = np.array(position, np.float64)
        self.linear = np.zeros(3)
        self.ros_s = 100_000.0
        self.mono_s = 50.0

    def wait(self, dt_s: float, *, clock_runs: bool = True) -> None:
        """Let time pass."""
        self.position = self.position + self.linear * dt_s
        self.mono_s += dt_s
        if clock_runs:
            self.ros_s += dt_s

    def follow(self, command: Any) -> None:
        """Do from now on what a command says; None is silence."""
        self.linear = np.zeros(3) if command is None else command.linear


class MotionOracle:
    """Finds fault with commands; `limits` has the fields of ControlParameters."""

    def __init__(self, limits: Any, robot: Robot) -> None:
        self._limits = limits
        self._robot = robot
        self._linear = np.zeros(3)
        self._angular = np.zeros(3)

    def fault(
        self, command: Any, dt_s: float, *, may_move: bool, period_s: float | None = None,
    ) -> str | None:
        """
        Return what is wrong with a command, None where nothing is.

        :param dt_s: since the command before [s].
        :param may_move: False where it must brake as hard as it may, until it is at rest.
        :param period_s: of every delta so far, where all have the same [s].
        """
        linear = np.zeros(3) if command is None else command.linear
        angular = np.zeros(3) if command is None else command.angular
        limits = self._limits
        found = (
            _speed_fault('linear', linear, self._linear, dt_s, limits.max_linear_mps,
                         limits.max_linear_mps2)
            or _speed_fault('angular', angular, self._angular, dt_s, limits.max_angular_radps,
                            limits.max_angular_radps2)
            or self._box_fault('tool', self._robot.position)
            or (None if may_move else self._braking_fault(linear, angular, dt_s))
            or self._displacement_fault(linear, angular, period_s)
            or (None if command is None else self._extras_fault(command)))
        self._linear, self._angular = linear, angular
        return found

    def _box_fault(self, what: str, position: np.ndarray) -> str | None:
        low, high = self._limits.workspace_min_m, self._limits.workspace_max_m
        inside = all(a - TOLERANCE <= x <= b + TOLERANCE
                     for a, x, b in zip(low, position.tolist(), high, strict=True))
        return None if inside else f'{what} at {position.tolist()}, outside {low} to {high}'

    def _braking_fault(
        self, linear: np.ndarray, angular: np.ndarray, dt_s: float,
    ) -> str | None:
        # A late tick is granted the acceleration of two periods.
        time_s = min(dt_s, 2.0 * self._limits.command_period_s)
        for name, now, before, most in (
                ('linear', linear, self._linear, self._limits.max_linear_mps2),
                ('angular', angular, self._angular, self._limits.max_angular_radps2)):
            allowed = max(0.0, _norm(before) - most * time_s)
            if _norm(now) > allowed + TOLERANCE:
                return (f'{name} speed {_norm(now):.9g} where nothing fresh is to be followed, '
                        f'expected braking to {allowed:.9g}')
        return None

    def _displacement_fault(
        self, linear: np.ndarray, angular: np.ndarray, period_s: float | None,
    ) -> str | None:
        if period_s is None:
            return None
        for name, speed, most in (('linear', linear, self._limits.max_delta_m),
                                  ('angular', angular, self._limits.max_delta_rad)):
            if _norm(speed) * period_s > most + TOLERANCE:
                return f'{name} displacement {_norm(speed) * period_s:.9g} per delta over {most}'
        return None

    def _extras_fault(self, command: Any) -> str | None:
        if command.gripper not in (None, 0.0, 1.0):
            return f'gripper {command.gripper}'
        if command.pose is None:
            return None
        target, turn = command.pose.position, command.pose.quaternion
        if not abs(_norm(turn) - 1.0) <= TOLERANCE:
            return f'target of quaternion norm {_norm(turn)}'
        lead_m = _norm(target - self._robot.position)
        if not lead_m <= self._limits.max_lead_m + TOLERANCE:
            return f'target {lead_m} m ahead of the tool'
        # The tool of this robot is never turned.
        lead_rad = 2.0 * math.atan2(_norm(turn[1:]), abs(float(turn[0])))
        if not lead_rad <= self._limits.max_lead_rad + _ANGLE_TOLERANCE:
            return f'target turned {lead_rad} rad ahead of the tool'
        return self._box_fault('target', target)


def _speed_fault(
    name: str, now: np.ndarray, before: np.ndarray, dt_s: float, speed: float,
    acceleration: float,
) -> str | None:
    # Written so that NaN is a fault.
    if not _norm(now) <= speed + TOLERANCE:
        return f'{name} speed {_norm(now)} over {speed}'
    if not _norm(now - before) <= acceleration * dt_s + TOLERANCE:
        return f'{name} change {_norm(now - before)} over {acceleration} x {dt_s}'
    return None


def _norm(vector: np.ndarray) -> float:
    return math.sqrt(sum(value * value for value in vector.tolist()))
