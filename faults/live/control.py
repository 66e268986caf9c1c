"""A few numbers in a file that two processes map: what a stand-in is to do, and what it did."""

from pathlib import Path

import numpy as np

# Each is a float64.
_FIELDS = {
    # Time per inference [s].
    'infer_s': 0.005,
    # Of the tool [m/s].
    'x_mps': 0.0, 'y_mps': 0.0, 'z_mps': 0.0,
    # Not 0: the next inference does not end before this is 0 again.
    'hang': 0.0,
    # When the inference that hangs began, on the system's clock [s]; 0 while none does.
    'hung_at_s': 0.0,
    # What inference raises, an index into ERRORS of the stand-in; 0 for nothing.
    'error': 0.0,
    # What every inference keeps for ever [B].
    'leak_bytes': 0.0,
    # How many inferences were made.
    'inferences': 0.0,
}


class Control:
    """The numbers by name, as attributes; writes are seen by the other process at once."""

    def __init__(self, path: Path) -> None:
        """Map a file of `create`."""
        values = np.memmap(path, np.float64, 'r+', shape=(len(_FIELDS),))
        object.__setattr__(self, '_values', dict(
            zip(_FIELDS, np.split(values, len(_FIELDS)), strict=True)))

    @classmethod
    def create(cls, path: Path, **values: float) -> 'Control':
        """Make the file, with the defaults where nothing else is given."""
        path.write_bytes(np.array(list(_FIELDS.values()), np.float64).tobytes())
        control = cls(path)
        for name, value in values.items():
            setattr(control, name, value)
        return control

    def __getattr__(self, name: str) -> float:
        try:
            return float(self._values[name][0])
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: float) -> None:
        self._values[name][0] = value
