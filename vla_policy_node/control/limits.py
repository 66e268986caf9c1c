"""Limits on vectors: shortening that keeps direction, the ramp, and the workspace box."""

import numpy as np

LARGEST_TINY = 1e-300


def shorten(vector: np.ndarray, max_norm: float) -> tuple[np.ndarray, bool]:
    """Return the (3,) vector with its norm cut to max_norm, and whether it was cut."""
    norm = float(np.linalg.norm(vector))
    if norm <= max_norm:
        return vector, False
    return vector * (max_norm / norm), True


def ramp(current: np.ndarray, target: np.ndarray, max_change: float) -> tuple[np.ndarray, bool]:
    """Return the point at most max_change from current towards target, and whether it fell short.

    The result lies on the straight line between the two, so it is never longer than the longer
    of them.
    """
    change, cut = shorten(target - current, max_change)
    if not cut:
        return target, False
    return current + change, True


def delta_to_twist(delta, period_s: float, *, max_delta_m: float, max_delta_rad: float,
                   max_linear_mps: float, max_angular_radps: float):
    """Return the constant twist that makes a delta in its period, within the limits.

    delta: (6,) float64: translation [m], rotation vector [rad]. A constant angular velocity along
    the rotation vector makes exactly that rotation, so no approximation is involved.
    Returns linear (3,) [m/s], angular (3,) [rad/s] and the names of the limits that cut.
    """
    linear, cut_m = shorten(delta[:3], max_delta_m)
    angular, cut_rad = shorten(delta[3:6], max_delta_rad)
    linear, cut_mps = shorten(linear / period_s, max_linear_mps)
    angular, cut_radps = shorten(angular / period_s, max_angular_radps)
    cuts = {'linear_displacement': cut_m, 'angular_displacement': cut_rad,
            'linear_speed': cut_mps, 'angular_speed': cut_radps}
    return linear, angular, tuple(name for name, cut in cuts.items() if cut)


class Workspace:
    """A box that the tool must be able to stop in.

    A velocity is allowed when holding it for hold_s and then braking in a straight line with
    the given acceleration ends inside the box. Braking at every tick keeps that true whatever was
    commanded before, so speed, acceleration and box never contradict each other.
    """

    def __init__(self, low, high, *, acceleration: float, hold_s: float) -> None:
        """Keep the corners (3,) [m], the braking acceleration [m/s^2] and the look-ahead [s]."""
        self._low = np.asarray(low, dtype=np.float64)
        self._high = np.asarray(high, dtype=np.float64)
        self._acceleration = acceleration
        self._hold_s = hold_s

    def shorten(self, velocity: np.ndarray, positions) -> tuple[np.ndarray, bool]:
        """Return the velocity (3,) slowed so that it is allowed from every position (3,)."""
        speed = float(np.linalg.norm(velocity))
        if speed < LARGEST_TINY:
            return np.zeros(3), False
        direction = velocity / speed
        free_m = min(self._free_distance(direction, position) for position in positions)
        return shorten(velocity, self._stoppable_speed(free_m))

    def allows(self, velocity: np.ndarray, positions) -> bool:
        """Tell whether the velocity (3,) is allowed from every position, up to rounding."""
        slowed, cut = self.shorten(velocity, positions)
        return not cut or bool(np.linalg.norm(velocity - slowed) < 1e-12)

    def _free_distance(self, direction: np.ndarray, position: np.ndarray) -> float:
        # Outside the box the way back in stays open: the box then reaches to the tool.
        face = np.where(direction > 0, np.maximum(self._high, position),
                        np.minimum(self._low, position))
        with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
            distance = (face - position) / direction
        return float(np.min(np.where(direction == 0, np.inf, distance)))

    def _stoppable_speed(self, free_m: float) -> float:
        # The speed v that solves v hold + v^2 / (2 a) = free, written without cancellation.
        lag = self._acceleration * self._hold_s
        if free_m <= 0.0:
            return 0.0
        if not np.isfinite(free_m):
            return np.inf
        return 2 * self._acceleration * free_m / (
            lag + np.sqrt(lag * lag + 2 * self._acceleration * free_m))
