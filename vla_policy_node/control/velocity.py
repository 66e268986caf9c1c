"""The commanded velocity: how fast it may change, and that it never leaves the workspace.

Braking, whether for a stop or before a face of the workspace, is limited by the acceleration
alone. Smoothing and the limit on jerk shape the motion only: both would lengthen a stop.
"""

from collections.abc import Sequence
import math

import numpy as np

from vla_policy_node.control.limits import ramp
from vla_policy_node.control.limits import shorten
from vla_policy_node.control.limits import Workspace
from vla_policy_node.control.parameters import ControlParameters


class Velocity:
    """A velocity (3,), linear [m/s] or angular [rad/s], that follows a wanted one."""

    def __init__(self, *, max_speed: float, max_acceleration: float, max_jerk: float,
                 smoothing_s: float) -> None:
        """Start at rest; max_jerk 0 means no limit, smoothing_s 0 no smoothing."""
        self._max_speed = max_speed
        self._max_acceleration = max_acceleration
        self._max_jerk = max_jerk
        self._smoothing_s = smoothing_s
        self._smoothed = np.zeros(3)
        self._acceleration = np.zeros(3)
        self.now = np.zeros(3)

    def smooth(self, wanted: np.ndarray, dt_s: float) -> np.ndarray:
        """Return the wanted velocity behind a first-order low-pass."""
        if self._smoothing_s > 0.0:
            share = -math.expm1(-dt_s / self._smoothing_s)
            self._smoothed = self._smoothed + (wanted - self._smoothed) * share
            return self._smoothed
        return wanted

    def towards(self, wanted: np.ndarray, dt_s: float) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the velocity to take next and which of 'acceleration', 'jerk' held it back."""
        if self._max_jerk == 0.0 or dt_s == 0.0:
            reached, cut = ramp(self.now, wanted, self._max_acceleration * dt_s)
            return reached, ('acceleration',) if cut else ()
        gap, step = wanted - self.now, self._max_jerk * dt_s
        aim, accelerates = shorten(self._aim(gap, step, dt_s), self._max_acceleration)
        change, jerks = shorten(aim - self._acceleration, step)
        reached, _ = shorten(self.now + (self._acceleration + change) * dt_s, self._max_speed)
        cuts = (('acceleration',) if accelerates else ()) + (('jerk',) if jerks else ())
        return reached, cuts

    def take(self, velocity: np.ndarray, dt_s: float) -> None:
        """Move on to a velocity that `towards` returned dt_s after the one before."""
        self._acceleration = (velocity - self.now) / dt_s if dt_s > 0.0 else np.zeros(3)
        self.now = velocity

    def brake(self, dt_s: float) -> None:
        """Brake straight; the motion after it begins anew."""
        self.now, _ = ramp(self.now, np.zeros(3), self._max_acceleration * dt_s)
        self._smoothed = self.now
        self._acceleration = np.zeros(3)

    @staticmethod
    def _aim(gap: np.ndarray, step: float, dt_s: float) -> np.ndarray:
        """Return the greatest acceleration that can still be taken back while the gap closes.

        Held for dt_s each, the accelerations a, a - step, a - 2 step and so on, as many as are
        above zero, must add up to the gap: m a - step m (m - 1) / 2 for m of them.
        """
        size = float(np.linalg.norm(gap))
        if size == 0.0:
            return np.zeros(3)
        needed = size / dt_s
        count = max(1, math.ceil(0.5 * (math.sqrt(1.0 + 8.0 * needed / step) - 1.0)))
        return gap * ((needed / count + 0.5 * step * (count - 1)) / size)


class LimitedTwist:
    """The commanded twist: linear and angular velocity, each within its own limits."""

    def __init__(self, parameters: ControlParameters, *, hold_s: float) -> None:
        """Start at rest; the workspace is looked at hold_s ahead [s]."""
        self._linear = Velocity(
            max_speed=parameters.max_linear_mps, max_acceleration=parameters.max_linear_mps2,
            max_jerk=parameters.max_linear_mps3, smoothing_s=parameters.smoothing_s)
        self._angular = Velocity(
            max_speed=parameters.max_angular_radps,
            max_acceleration=parameters.max_angular_radps2,
            max_jerk=parameters.max_angular_radps3, smoothing_s=parameters.smoothing_s)
        self._workspace = Workspace(
            parameters.workspace_min_m, parameters.workspace_max_m,
            acceleration=parameters.max_linear_mps2, hold_s=hold_s)

    @property
    def linear(self) -> np.ndarray:
        """Linear velocity (3,) [m/s]."""
        return self._linear.now

    @property
    def angular(self) -> np.ndarray:
        """Angular velocity (3,) [rad/s]."""
        return self._angular.now

    @property
    def at_rest(self) -> bool:
        """Whether both are exactly zero."""
        return not (self.linear.any() or self.angular.any())

    def brake(self, dt_s: float) -> None:
        """Brake straight for dt_s."""
        self._linear.brake(dt_s)
        self._angular.brake(dt_s)

    def follow(self, linear: np.ndarray, angular: np.ndarray, dt_s: float,
               positions: Sequence[np.ndarray]) -> tuple[str, ...]:
        """Go towards the wanted velocities (3,) for dt_s; return the limits that held them back.

        positions: the points (3,) [m] that must stay in the workspace; none where there is none.
        """
        cuts = self._follow_inside(linear, dt_s, positions)
        turned, held = self._angular.towards(self._angular.smooth(angular, dt_s), dt_s)
        self._angular.take(turned, dt_s)
        return cuts + tuple(f'angular_{name}' for name in held)

    def _follow_inside(self, wanted: np.ndarray, dt_s: float, positions) -> tuple[str, ...]:
        wanted, cut = self._linear.smooth(wanted, dt_s), False
        if positions:
            wanted, cut = self._workspace.shorten(wanted, positions)
        reached, held = self._linear.towards(wanted, dt_s)
        if positions and not self._workspace.allows(reached, positions):
            # On the way to an allowed velocity this one is not: braking straight always is.
            self._linear.brake(dt_s)
            cut = True
        else:
            self._linear.take(reached, dt_s)
        return (('workspace',) if cut else ()) + tuple(f'linear_{name}' for name in held)
