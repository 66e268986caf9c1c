"""Output that is there when it is complete, and otherwise not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
import errno
import os
from pathlib import Path
import tempfile

# A quota and the largest size of a file are to the user what a full disk is.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ConvertError(ValueError):
    """A conversion cannot be done; one line says what was expected, what was found, the mend."""


@contextmanager
def finished_at(out: Path) -> Iterator[Path]:
    """
    Yield a path in a temporary folder beside `out`; what is made there becomes `out` at the end.

    Raises ConvertError where `out` exists already or the disk is full; then, as after any other
    error, nothing stays.
    """
    _refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as scratch:
            made = Path(scratch) / out.name
            yield made
            _refuse_existing(out)
            made.rename(out)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConvertError(
            f'{out}: expected room on the disk, found it full ({os.strerror(error.errno)}); '
            'nothing was kept, free some space or give another --out') from error


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise ConvertError(f'{out}: expected nothing there yet, found a file or folder; remove '
                           'it or give another --out')
