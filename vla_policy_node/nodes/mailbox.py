"""A one-slot mailbox: the newest frame wins, older ones are counted and forgotten."""

from collections import deque
from dataclasses import dataclass
from typing import Any

# Spacing that counts as the camera's own: a low quantile, so that it survives heavy loss.
_NOMINAL_QUANTILE = 0.2
_SPACINGS_KEPT = 32
_SPACINGS_NEEDED = 5
# A longer gap is a paused camera, not a lossy transport.
_PAUSE_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """
    One camera message as it was received, not yet converted.

    :param message: sensor_msgs Image or CompressedImage.
    :param stamp_ns: header stamp [ns].
    :param received_monotonic_s: time.monotonic() when the callback ran [s].
    """

    message: Any
    stamp_ns: int
    received_monotonic_s: float


class LossEstimate:
    """
    Counts frames that never came, from the spacing of the stamps of those that did.

    lost: frames counted so far; spacing_ns: the camera's own spacing [ns], 0 while unknown.
    """

    def __init__(self) -> None:
        """Start with no stamp seen."""
        self.lost = 0
        self.spacing_ns = 0
        self._last_ns: int | None = None
        self._spacings: deque[int] = deque(maxlen=_SPACINGS_KEPT)

    def add(self, stamp_ns: int) -> int:
        """Take the next stamp [ns] and return how many frames are missing before it."""
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is None or not 0 < stamp_ns - last_ns < _PAUSE_NS:
            return 0
        self._spacings.append(stamp_ns - last_ns)
        if len(self._spacings) < _SPACINGS_NEEDED:
            return 0
        ordered = sorted(self._spacings)
        self.spacing_ns = ordered[int(_NOMINAL_QUANTILE * len(ordered))]
        missing = max(0, round((stamp_ns - last_ns) / self.spacing_ns) - 1)
        self.lost += missing
        return missing


class Mailbox:
    """Holds the newest frame of one camera. Not locked: the owner's condition guards it."""

    def __init__(self) -> None:
        """Start empty with all counters at zero."""
        self.received = 0
        self.superseded = 0
        self.out_of_order = 0
        self.loss = LossEstimate()
        self._frame: Frame | None = None
        self._looked_at = True
        self._last_stamp_ns = -1

    @property
    def newest(self) -> Frame | None:
        """The newest frame, looked at or not; None before the first."""
        return self._frame

    @property
    def has_new(self) -> bool:
        """Whether the newest frame has not been taken yet."""
        return not self._looked_at

    def put(self, frame: Frame) -> int:
        """Store a frame unless its stamp goes backwards; return how many are missing before."""
        self.received += 1
        # Time that jumps back by more than a pause is a restarted clock, not a late frame.
        if 0 <= self._last_stamp_ns - frame.stamp_ns < _PAUSE_NS:
            self.out_of_order += 1
            return 0
        self._last_stamp_ns = frame.stamp_ns
        self.superseded += self.has_new
        self._frame = frame
        self._looked_at = False
        return self.loss.add(frame.stamp_ns)

    def take(self) -> Frame | None:
        """Return the newest frame and mark it as looked at; None before the first."""
        self._looked_at = True
        return self._frame
