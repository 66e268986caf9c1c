"""Where the tool is now, and where it should be in pose mode."""

from collections import deque

import numpy as np

from vla_policy_node.control import rotation
from vla_policy_node.control.limits import shorten
from vla_policy_node.control.parameters import ControlParameters
from vla_policy_node.control.types import Pose
from vla_policy_node.control.types import Reason
from vla_policy_node.control.types import Rejection


class PoseTracker:
    """The measured tool position, carried to now by the motion commanded since its stamp."""

    def __init__(self, parameters: ControlParameters) -> None:
        """Start with no known pose."""
        self._parameters = parameters
        self._travel = np.zeros(3)
        self._history: deque[tuple[float, np.ndarray]] = deque()
        self._measured: Pose | None = None
        self._stamp_s = 0.0

    def forget(self) -> None:
        """Forget the pose and the history, because the ROS clock was set back."""
        self._history.clear()
        self._measured = None

    def measure(self, position, quaternion, stamp_s: float) -> Rejection | None:
        """Take a measured pose, or return why it is not one and keep the last."""
        position = np.asarray(position, dtype=np.float64)
        quaternion = np.asarray(quaternion, dtype=np.float64)
        if position.shape != (3,) or quaternion.shape != (4,):
            return Rejection(
                reason=Reason.WRONG_SHAPE,
                message='expected a tool pose of shapes (3,) and (4,), '
                        f'found {position.shape} and {quaternion.shape}')
        if not np.isfinite([*position, *quaternion, stamp_s]).all():
            return Rejection(
                reason=Reason.NON_FINITE,
                message=f'expected a finite tool pose and stamp, found {position}, {quaternion}, '
                        f'{stamp_s}')
        norm = float(np.linalg.norm(quaternion))
        if not 0.99 <= norm <= 1.01:
            return Rejection(
                reason=Reason.OUT_OF_RANGE,
                message=f'expected a tool quaternion of norm 1, found norm {norm:.4g}')
        self._measured = Pose(position=position, quaternion=quaternion / norm)
        self._stamp_s = stamp_s
        return None

    def advance(self, velocity: np.ndarray, dt_s: float, now_ros_s: float) -> None:
        """Account for a velocity (3,) commanded over the dt_s that end now."""
        self._travel = self._travel + velocity * dt_s
        if self._history and self._history[-1][0] == now_ros_s:
            # While the ROS clock stands still nothing would ever grow old enough to be dropped.
            self._history.pop()
        self._history.append((now_ros_s, self._travel))
        oldest_s = now_ros_s - self._parameters.pose_timeout_s
        # The newest entry before oldest_s stays: it is the left end for interpolation.
        while len(self._history) > 1 and self._history[1][0] <= oldest_s:
            self._history.popleft()

    def now(self, now_ros_s: float) -> Pose | None:
        """Return the pose carried to now, None when the measured one is missing or too old."""
        if self._measured is None:
            return None
        age_s = now_ros_s - self._stamp_s
        if not -self._parameters.max_clock_skew_s <= age_s <= self._parameters.pose_timeout_s:
            return None
        position = self._measured.position + self._travel - self._travel_at(self._stamp_s)
        return Pose(position=position, quaternion=self._measured.quaternion)

    def _travel_at(self, stamp_s: float) -> np.ndarray:
        if not self._history:
            return self._travel
        times = [time_s for time_s, _ in self._history]
        travels = np.stack([travel for _, travel in self._history])
        return np.array([np.interp(stamp_s, times, travels[:, axis]) for axis in range(3)])


class PoseTarget:
    """The pose to send: the limited twist integrated from where the tool is."""

    def __init__(self, parameters: ControlParameters) -> None:
        """Start with no target."""
        self._parameters = parameters
        self.pose: Pose | None = None

    def anchor(self, measured: Pose) -> None:
        """Begin a motion: go on from the last target while it is near, else from the tool.

        Going on avoids a jump by the steady error of a compliant controller.
        """
        if self.pose is None or self._leads_too_far(measured):
            self.pose = measured

    def move(self, linear: np.ndarray, angular: np.ndarray, dt_s: float, measured: Pose) -> None:
        """Move the target by a twist for dt_s, at most the allowed lead ahead of the tool."""
        turned = rotation.multiply(
            rotation.from_rotation_vector(angular * dt_s), self.pose.quaternion)
        lead, _ = shorten(
            self.pose.position + linear * dt_s - measured.position, self._parameters.max_lead_m)
        turn = rotation.multiply(turned, rotation.conjugate(measured.quaternion))
        turn_lead, cut = shorten(
            rotation.to_rotation_vector(turn), self._parameters.max_lead_rad)
        if cut:
            turned = rotation.multiply(
                rotation.from_rotation_vector(turn_lead), measured.quaternion)
        self.pose = Pose(position=measured.position + lead, quaternion=turned)

    def _leads_too_far(self, measured: Pose) -> bool:
        lead_m = np.linalg.norm(self.pose.position - measured.position)
        turn = rotation.multiply(self.pose.quaternion, rotation.conjugate(measured.quaternion))
        lead_rad = np.linalg.norm(rotation.to_rotation_vector(turn))
        return bool(lead_m > self._parameters.max_lead_m
                    or lead_rad > self._parameters.max_lead_rad)
