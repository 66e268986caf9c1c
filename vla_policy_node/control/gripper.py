"""When the gripper is told something: on a change only, with hysteresis."""


class GripperTrigger:
    """Turns openings wanted at each step into open (1.0) and close (0.0) commands."""

    def __init__(self, *, open_above: float, close_below: float) -> None:
        """Open above one threshold, close below the other; in between nothing changes."""
        self._open_above = open_above
        self._close_below = close_below
        self._last: float | None = None

    def forget(self) -> None:
        """Assume nothing about the gripper, so that the next clear wish is sent."""
        self._last = None

    def update(self, opening: float) -> float | None:
        """Return 1.0 or 0.0 when the command changes, else None."""
        if opening > self._open_above:
            wanted = 1.0
        elif opening < self._close_below:
            wanted = 0.0
        else:
            return None
        if wanted == self._last:
            return None
        self._last = wanted
        return wanted
