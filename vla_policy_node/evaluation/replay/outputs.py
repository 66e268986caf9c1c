"""Files that are there completely or not at all, all of them or none."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
import errno
from pathlib import Path
import shutil
import tempfile


class OutputError(OSError):
    """Results cannot be written; one line says where, why, and what is there instead."""


class Outputs:
    """
    The files of one run; a context manager.

    They are written into a hidden folder inside `folder` and moved to their places when the block
    ends without an error. Otherwise what lay there before stays as it was. A folder that would be
    left new and empty is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._draft: Path | None = None
        self._is_new = not folder.exists()

    def __enter__(self) -> 'Outputs':
        with self._writing('the folder'):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._draft = Path(tempfile.mkdtemp(prefix='.unfinished-', dir=self.folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._writing('the results'):
                    for file in sorted(self._draft.iterdir()):
                        file.replace(self.folder / file.name)
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)
            if self._is_new:
                with suppress(OSError):     # it holds something
                    self.folder.rmdir()

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """Give the path to write a file to until the block ends; OutputError where that fails."""
        with self._writing(name):
            yield self._draft / name

    def text(self, name: str, text: str) -> None:
        """Write a text file."""
        with self.draft(name) as path:
            path.write_text(text, encoding='utf-8')

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            mend = ('free some space' if error.errno in (errno.ENOSPC, errno.EDQUOT)
                    else 'give another folder with --out')
            raise OutputError(
                error.errno, f'{self.folder}: cannot write {name}: {reason}; no result was '
                f'replaced or left half-written, {mend} and run again') from error
