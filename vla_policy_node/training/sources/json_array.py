"""One large JSON list, read element by element."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any
from typing import TextIO

from vla_policy_node.training.sources.records import SourceError

_CHUNK = 2 ** 20
# An element that is not complete after so many characters is damage, not length.
_LONGEST_ELEMENT = 2 ** 25


def is_array(path: Path) -> bool:
    """Return whether the first character of a file opens a JSON list."""
    with path.open('rb') as file:
        return file.read(4096).removeprefix(b'\xef\xbb\xbf').lstrip()[:1] == b'['


def array_entries(path: Path) -> Iterator[Any]:
    """
    Yield the objects of a file with one JSON list of objects, holding one at a time.

    Raises SourceError where the file is no such list, naming the element.
    """
    with path.open(encoding='utf-8-sig') as file:
        try:
            yield from _Elements(file)
        except (ValueError, RecursionError) as error:
            raise SourceError(f'{path}: expected one JSON list of objects, found {error}; '
                              'mend the file, or write one object per line (.jsonl)') from error


class _Elements:
    """Iterator over the elements of a list in a text file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ''
        self._at = 0
        self._count = 0
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[Any]:
        self._expect('[')
        if self._next_character() == ']':
            return
        while True:
            yield self._element()
            self._count += 1
            if self._next_character() == ']':
                return
            self._expect(',')

    def _element(self) -> Any:
        """Return the next object, reading on until it is complete."""
        if self._next_character() != '{':
            raise self._error('an object')
        while True:
            try:
                element, self._at = self._decoder.raw_decode(self._text, self._at)
                return element
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LONGEST_ELEMENT or not self._read_on():
                    raise self._error(f'an object ({error.msg})') from error

    def _expect(self, character: str) -> None:
        if self._next_character() != character:
            raise self._error(f'{character!r}')
        self._at += 1

    def _next_character(self) -> str:
        """Skip white space; return the character there, '' at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in ' \t\r\n':
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ''

    def _read_on(self) -> bool:
        """Drop what was used and double what is left; False at the end of the file."""
        rest = self._text[self._at:]
        more = self._file.read(max(_CHUNK, len(rest)))
        self._text, self._at = rest + more, 0
        return bool(more)

    def _error(self, wanted: str) -> ValueError:
        excerpt = self._text[self._at:self._at + 40] or 'the end of the file'
        return ValueError(f'{excerpt!r} instead of {wanted} after {self._count} elements')
