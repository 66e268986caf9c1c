"""
JSON entries of a file by number, without holding them: an index of byte offsets is kept on disk.

Knows nothing of questions or pictures: a layout function says how many records an entry holds.
"""

from collections.abc import Callable
from collections.abc import Iterator
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy_node.training.sources.json_array import array_entries
from vla_policy_node.training.sources.json_array import is_array
from vla_policy_node.training.sources.mapped import MappedTable
from vla_policy_node.training.sources.mapped import partial_path
from vla_policy_node.training.sources.mapped import write_table
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError

# offset: of the entry in the file, bytes; line: counted from 1; unit: which record of the entry;
# group: number of the picture or entry that the record is about.
_ROW = np.dtype([('offset', '<i8'), ('line', '<i8'), ('group', '<i8'), ('unit', '<i8')])
_INDEX_VERSION = 1

# Entry -> (how many records it holds, what they are about, '' for the entry itself). ValueError
# where the entry is not of the wanted form: it is kept as one record that is found corrupt.
Layout = Callable[[Any], tuple[int, str]]


class JsonLines:
    """The records of a JSONL file, or of a JSON file with one list, which is rewritten once."""

    def __init__(self, path: Path, *, layout: Layout, cache: Path) -> None:
        """
        Index the file, or take the index that an earlier run left in `cache`.

        layout must be a module's function; its name is part of what the index is known by.
        Raises SourceError for a file that is missing, empty or holds no usable record.
        """
        self._given = path
        _check_file(path)
        stem = cache / f'{path.stem}-{_key(path, layout)}'
        self._unit_name = 'entry' if is_array(path) else 'line'
        self._lines = _as_lines(path, stem.with_suffix('.jsonl'))
        facts_path = stem.with_suffix('.facts.json')
        index_path = stem.with_suffix('.index')
        if not facts_path.exists():
            _write_index(self._lines, layout, index_path, facts_path)
        facts = json.loads(facts_path.read_text(encoding='utf-8'))
        if not facts['usable']:
            raise SourceError(f'{path}: expected at least one usable record, found none: '
                              f'{facts["trouble"] or "the file is empty"}')
        self._fingerprint = facts['fingerprint']
        self._index = MappedTable(index_path, _ROW)

    def __len__(self) -> int:
        return len(self._index)

    def entry(self, number: int) -> tuple[Any, int]:
        """Return the parsed entry of a record and which record of it; RecordError if damaged."""
        row = self._index.rows[number]
        with self._lines.open('rb') as file:
            file.seek(int(row['offset']))
            line = file.readline()
        try:
            return _parsed(line), int(row['unit'])
        except ValueError as error:
            raise RecordError(f'{self.where(number)}: expected JSON, found {error}') from error

    def where(self, number: int) -> str:
        """Return file and line of a record, for messages."""
        return f'{self._given}, {self._unit_name} {self._index.rows[number]["line"]}'

    @property
    def groups(self) -> np.ndarray:
        """(N,) int64, mapped: equal for records about the same picture or of the same entry."""
        return self._index.rows['group']

    @property
    def fingerprint(self) -> str:
        """A sha256 over the file."""
        return self._fingerprint


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f'expected a file at {path}, found '
                          f'{"a folder" if path.is_dir() else "nothing"}; mend `path`')


def _key(path: Path, layout: Layout) -> str:
    facts = path.stat()
    name = (f'{_INDEX_VERSION} {path.resolve()} {facts.st_size} {facts.st_mtime_ns} '
            f'{layout.__module__}.{layout.__qualname__}')
    return hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]


def _as_lines(path: Path, lines: Path) -> Path:
    """Return a file with one entry per line: the file itself, or `lines`, written if missing."""
    if not is_array(path):
        return path
    if not lines.exists():
        lines.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(lines)
        with partial.open('w', encoding='ascii') as file:
            file.writelines(f'{json.dumps(entry)}\n' for entry in array_entries(path))
        partial.replace(lines)
    return lines


def _write_index(lines: Path, layout: Layout, index: Path, facts: Path) -> None:
    digest = hashlib.sha256()
    found = {'usable': 0, 'trouble': ''}
    write_table(index, _ROW, _rows(lines, layout, digest, found))
    partial = partial_path(facts)
    partial.write_text(json.dumps({**found, 'fingerprint': digest.hexdigest()}))
    partial.replace(facts)


def _rows(lines: Path, layout: Layout, digest: Any, found: dict) -> Iterator[tuple]:
    """Yield a row per record; `found` counts usable ones and keeps the first trouble."""
    offset = 0
    with lines.open('rb') as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            if line.strip():
                count, group = _laid_out(line, number, layout, found)
                for unit in range(count):
                    yield offset, number, group, unit
            offset += len(line)


def _laid_out(line: bytes, number: int, layout: Layout, found: dict) -> tuple[int, int]:
    try:
        count, about = layout(_parsed(line))
    except ValueError as error:
        found['trouble'] = found['trouble'] or f'at line {number}: {error}'
        return 1, number
    found['usable'] += count
    return count, group_number(about) if about else number


def _parsed(line: bytes) -> Any:
    """Parse a line; only UTF-8 is looked for, which is what JSON lines are written in."""
    return json.loads(line.removeprefix(b'\xef\xbb\xbf').decode('utf-8'))


def group_number(name: str) -> int:
    """Return a number from 0 to 2**62 that is the same for the same name, here and elsewhere."""
    digest = hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 2
