"""How evenly the control loop runs, for reports. Reads no clock."""

from collections import deque

import numpy as np

# A minute at 100 Hz: long enough for a p99, short enough to show what happens now.
_KEPT = 6000


class LoopTiming:
    """By how much the time between two ticks of the loop deviates from its period."""

    def __init__(self, period_s: float) -> None:
        """Start with no tick seen."""
        self._period_s = period_s
        self._last_s: float | None = None
        self._deviations_s: deque[float] = deque(maxlen=_KEPT)
        self.worst_ms = 0.0

    def tick(self, now_mono_s: float) -> None:
        """Take the monotonic time of a tick [s]."""
        if self._last_s is not None:
            deviation_s = abs(now_mono_s - self._last_s - self._period_s)
            self._deviations_s.append(deviation_s)
            self.worst_ms = max(self.worst_ms, 1e3 * deviation_s)
        self._last_s = now_mono_s

    def p99_ms(self) -> float:
        """Return the p99 deviation over the latest 6,000 periods [ms], 0 before the first."""
        if not self._deviations_s:
            return 0.0
        return 1e3 * float(np.percentile(self._deviations_s, 99))
