"""
The log of a training run: log.jsonl, and whoever else wants to hear each record.

One JSON object per line, appended and flushed, so that a killed run keeps everything but its last
line. `kind` says what a record is: mixture, train, validation, event, closed_loop (`per_verb`:
{verb: [successes, episodes]}); without a kind it is of training. Steps count from 1 within the
`stage` of a record, where a run has stages.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Sink = Callable[[Record], None]

LOG_NAME = 'log.jsonl'

_LOGGER = logging.getLogger(__name__)


class Journal:
    """
    Appends records to `folder`/log.jsonl and hands each of them to the sinks.

    A full disk does not end a training: what could not be written is counted in `lost`, warned
    about once, and noted as an event in the log when there is room again. Raises OSError when the
    log cannot be opened at all. Sinks with a `close` method are closed with the journal.
    """

    def __init__(self, folder: Path, sinks: Sequence[Sink] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOG_NAME
        # A run killed while writing leaves half a line; it must not swallow the next one.
        self._torn = _ends_within_a_line(path)
        self._file = path.open('ab', buffering=0)
        self._sinks = tuple(sinks)
        self._unreported = 0
        self.lost = 0

    def __enter__(self) -> 'Journal':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, record: Record) -> None:
        """Append one record; non-finite numbers become null, numpy scalars plain numbers."""
        plain = _plain(record)
        self._append(plain)
        for sink in self._sinks:
            sink(plain)

    def close(self) -> None:
        """Close the log and the sinks."""
        self._file.close()
        for sink in self._sinks:
            if hasattr(sink, 'close'):
                sink.close()

    def _append(self, record: Record) -> None:
        lines = [record]
        if self._unreported:
            detail = f'{self._unreported} records were not written'
            lines.insert(0, {'kind': 'event', 'name': 'disk_full', 'detail': detail})
        text = ''.join(json.dumps(line, allow_nan=False) + '\n' for line in lines)
        try:
            self._write_bytes(text.encode())
        except OSError as error:
            self._count_loss(error)
        else:
            self._unreported = 0

    def _write_bytes(self, data: bytes) -> None:
        data = b'\n' * self._torn + data
        written = self._file.write(data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(f'only {written} of {len(data)} bytes were written')

    def _count_loss(self, error: OSError) -> None:
        if not self.lost:
            _LOGGER.warning(
                'expected room for the log %s, found: %s; the training goes on, make room',
                self._file.name, error)
        self.lost += 1
        self._unreported += 1


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """
    Return the records of `folder`/log.jsonl in the order they were written.

    Lines that a kill or a full disk cut short are left out. Raises FileNotFoundError without log.
    """
    lines = (folder / LOG_NAME).read_text(encoding='utf-8', errors='replace').splitlines()
    parsed = [_parsed(line) for line in lines]
    return [record for record in parsed if record is not None]


def settled(records: Sequence[Record]) -> list[Record]:
    """
    Return the records that count, in order.

    A resumed run repeats steps: what was logged at or after the step it began at again, in the
    same stage, is left out.
    """
    kept: dict[tuple[str, str], list[tuple[int, Record]]] = {}
    for place, record in enumerate(records):
        stage, kind = record.get('stage', ''), record.get('kind', 'train')
        step = record.get('step')
        if kind == 'event' and record.get('name') == 'resumed' and step is not None:
            for (other_stage, other_kind), earlier in kept.items():
                if other_stage == stage and other_kind != 'event':
                    _drop_from(earlier, step + 1)
        earlier = kept.setdefault((stage, kind), [])
        if step is not None and kind != 'event':
            _drop_from(earlier, step)
        earlier.append((place, record))
    return [record for _, record in sorted(
        (entry for entries in kept.values() for entry in entries), key=lambda entry: entry[0])]


class Timeline:
    """Adds up the steps of a run's stages, in the order in which they appear."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.stages: dict[str, int] = {}
        for record in settled(records):
            self.place(record)

    def place(self, record: Record) -> int:
        """Return the step of a record over all stages; without a step, where the run stands."""
        if 'step' not in record:
            return sum(self.stages.values())
        stage = record.get('stage', '')
        earlier = itertools.takewhile(lambda entry: entry[0] != stage, self.stages.items())
        before = sum(steps for _, steps in earlier)
        if record.get('kind') != 'event':
            self.stages[stage] = record['step']
        return before + record['step']


def _ends_within_a_line(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open('rb') as log:
        log.seek(-1, os.SEEK_END)
        return log.read() != b'\n'


def _drop_from(entries: list[tuple[int, Record]], step: int) -> None:
    while entries and entries[-1][1].get('step', -1) >= step:
        entries.pop()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    """Return the value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, 'tolist'):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
