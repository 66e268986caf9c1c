"""What must be in order before anything moves: enabling, emergency stop, deadman switch."""


class Interlocks:
    """Closed at first and after a fault; only `enable` opens them."""

    def __init__(self, *, deadman_timeout_s: float | None) -> None:
        """Start disabled.

        deadman_timeout_s: longest time without a sign of the deadman switch [s]; None where
            there is no such switch.
        """
        self.enabled = False
        self.fault = ''
        self.stop_pressed = False
        self._deadman_timeout_s = deadman_timeout_s
        self._held_until_s: float | None = None

    def enable(self) -> str:
        """Open, ending a fault; return '' or why it stays closed."""
        if self.stop_pressed:
            return ('the emergency stop is pressed: release it, which alone moves nothing, and'
                    ' enable again')
        self.enabled, self.fault = True, ''
        return ''

    def disable(self) -> None:
        """Close; a fault stays one."""
        self.enabled = False

    def latch(self, reason: str) -> None:
        """Close until `enable`, whatever else happens."""
        self.enabled, self.fault = False, reason

    def hold_deadman(self, held: bool, now_mono_s: float) -> None:
        """Take a sign of the deadman switch: held, or let go, which counts at once."""
        if self._deadman_timeout_s is not None:
            self._held_until_s = now_mono_s + self._deadman_timeout_s if held else None

    def deadman_released(self, now_mono_s: float) -> bool:
        """Tell whether a required deadman switch is not held."""
        if self._deadman_timeout_s is None:
            return False
        return self._held_until_s is None or now_mono_s > self._held_until_s
