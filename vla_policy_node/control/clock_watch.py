"""Whether the ROS clock can be relied on, judged against the monotonic one."""

import math


class ClockWatch:
    """Notices a ROS clock that was set back and one that stands still, as a paused /clock does."""

    def __init__(self, *, max_skew_s: float, timeout_s: float) -> None:
        """Keep how far back is only skew, and after how long a clock counts as still [s]."""
        self._max_skew_s = max_skew_s
        self._timeout_s = timeout_s
        self._moved_mono_s = math.inf
        self._stands_still = False
        self.ros_s = -math.inf

    @property
    def stands_still(self) -> bool:
        """Whether the ROS clock had made no progress for too long when it was last read."""
        return self._stands_still

    def read(self, ros_s: float, mono_s: float) -> float:
        """Take the time; return by how much the ROS clock was set back [s], 0 for skew only."""
        back_s = self.ros_s - ros_s
        if ros_s != self.ros_s:
            self._moved_mono_s = mono_s
        self.ros_s = ros_s
        self._stands_still = mono_s - self._moved_mono_s > self._timeout_s
        return back_s if back_s > self._max_skew_s else 0.0
