"""
Reads what is left of a damaged rosbag2: cut off, without its index, or with bytes changed.

Nothing but the files themselves is trusted: metadata.yaml may be missing. Messages come in the
order of the file. A damaged chunk is left out, and reading ends where the file makes no sense
any more.
"""

from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
import re
import sqlite3
import struct
from tempfile import TemporaryDirectory
from typing import Any
from typing import NamedTuple
from typing import Protocol
import zlib

import lz4.frame
from rosbags.typesys import get_types_from_idl
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore

from vla_policy_node.zstandard import unpack_file
from vla_policy_node.zstandard import unzstd

BAG_SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')

_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _FOOTER = 3, 4, 5, 6, 2
_IDL_RULE = '=' * 80 + '\n'


class SalvageError(ValueError):
    """Nothing can be read of a file."""


class Channel(NamedTuple):
    """A topic of a file: its type and, where the file has it, the type's definition."""

    topic: str
    msgtype: str
    definition: str = ''


class TopicCount(NamedTuple):
    """The type of a topic and how many messages were found."""

    msgtype: str
    msgcount: int


class _Storage(Protocol):
    """One file: what it has, and how much of it could be read."""

    channels: dict[int, Channel]

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, time of receipt [ns] and bytes of every message, as far as it goes."""

    def damage(self) -> str:
        """Return what could not be read the last time, '' for nothing."""


class SalvagedBag:
    """
    The readable rest of a bag, with the part of AnyReader's interface that Recording needs.

    path: a folder with or without metadata.yaml, or a file. Raises SalvageError where there is
    no message at all.
    """

    def __init__(self, path: Path, common_types: Typestore) -> None:
        self._folder = TemporaryDirectory(prefix='bag_')
        self._storages = [_storage(file, Path(self._folder.name)) for file in _files(path)]
        counts = sum((_counts(storage) for storage in self._storages), Counter())
        if not counts:
            self.close()
            raise SalvageError(f'no message can be read ({self.damage()})')
        self.connections = tuple(counts)
        self.topics = {channel.topic: TopicCount(channel.msgtype, count)
                       for channel, count in counts.items()}
        self.typestore = _typestore(self.connections, common_types)

    def damage(self) -> str:
        """Return what could not be read, in words."""
        return '; '.join(filter(None, (storage.damage() for storage in self._storages)))

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """Return the message that CDR bytes say."""
        return self.typestore.deserialize_cdr(data, msgtype)

    def messages(
        self, connections: Collection[Channel], start: int | None = None, stop: int | None = None,
    ) -> Iterator[tuple[Channel, int, bytes]]:
        """Yield the messages of some channels received from `start` to before `stop` [ns]."""
        for storage in self._storages:
            for number, when, data in storage.messages():
                channel = storage.channels.get(number)
                if channel in connections and (start is None or when >= start) and (
                        stop is None or when < stop):
                    yield channel, when, data

    def close(self) -> None:
        """Let go of the files."""
        self._folder.cleanup()


class McapRest:
    """An MCAP file from its first byte on, without its index."""

    def __init__(self, path: Path) -> None:
        self.channels: dict[int, Channel] = {}
        self._schemas: dict[int, tuple[str, str]] = {}
        self._path = path
        self._size = path.stat().st_size
        self._read = 0
        self._lost_chunks = 0
        self._complete = False
        with path.open('rb') as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise SalvageError(f'{path.name} does not begin as an MCAP file')

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages of all complete records, damaged chunks left out."""
        self._read, self._lost_chunks, self._complete = len(_MAGIC), 0, False
        for kind, body in self._records():
            inside = _records_in(self._unpacked(body)) if kind == _CHUNK else ((kind, body),)
            for part, content in inside:
                if part == _MESSAGE and len(content) >= 22:
                    number, _, when = struct.unpack_from('<HIQ', content)
                    yield number, when, bytes(content[22:])
                else:
                    self._describe(part, content)

    def _describe(self, kind: int, body: memoryview) -> None:
        """Take a schema or a channel; a damaged one is as if it were not there."""
        try:
            if kind == _SCHEMA:
                name, _, definition = _texts(body, 2, 3)
                self._schemas[struct.unpack_from('<H', body)[0]] = name, definition
            elif kind == _CHANNEL:
                number, schema = struct.unpack_from('<HH', body)
                (topic,) = _texts(body, 4, 1)
                self.channels[number] = Channel(topic, *self._schemas.get(schema, ('', '')))
        except struct.error:
            return

    def damage(self) -> str:
        """Return how much of the file could be read, '' for all."""
        lost = f', {self._lost_chunks} damaged chunks left out' if self._lost_chunks else ''
        if self._complete:
            return f'{self._path.name}: read to its end{lost}' if lost else ''
        return (f'{self._path.name}: read {self._read} of {self._size} bytes '
                f'({100 * self._read / self._size:.1f} %), the rest is cut off or damaged{lost}')

    def _records(self) -> Iterator[tuple[int, memoryview]]:
        with self._path.open('rb') as stream:
            stream.seek(len(_MAGIC))
            while len(head := stream.read(9)) == 9:
                kind, size = struct.unpack('<BQ', head)
                if kind == 0 or size > self._size - stream.tell():
                    return
                body = memoryview(stream.read(size))
                self._read = stream.tell()
                if kind == _FOOTER:
                    self._complete = True
                    return
                yield kind, body

    def _unpacked(self, chunk: memoryview) -> memoryview:
        """Return the records of a chunk; none, and counted, where it is damaged."""
        try:
            size, checksum, named = struct.unpack_from('<QII', chunk, 16)
            packing = bytes(chunk[32:32 + named]).decode('ascii')
            (packed_size,) = struct.unpack_from('<Q', chunk, 32 + named)
            packed = chunk[40 + named:40 + named + packed_size]
            records = memoryview(_UNPACK[packing](packed))
        # Damaged bytes lead the three libraries behind this to their own kinds of errors.
        except Exception:
            self._lost_chunks += 1
            return memoryview(b'')
        if len(records) != size or (checksum and zlib.crc32(records) != checksum):
            self._lost_chunks += 1
            return memoryview(b'')
        return records


class SqliteRest:
    """A SQLite file, row by row as far as they can be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._fault = ''
        try:
            with closing(self._connected()) as database:
                definitions = _definitions(database)
                self.channels = {
                    number: Channel(topic, kind, definitions.get(kind, ''))
                    for number, topic, kind in database.execute(
                        'SELECT id, name, type FROM topics')}
        except sqlite3.Error as error:
            raise SalvageError(f'{path.name}: {error}') from error

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages in the order they were written, to the first damaged one."""
        self._read, self._fault = 0, ''
        try:
            with closing(self._connected()) as database:
                for number, when, data in database.execute(
                        'SELECT topic_id, timestamp, data FROM messages ORDER BY rowid'):
                    self._read += 1
                    yield number, when, bytes(data)
        except sqlite3.Error as error:
            self._fault = str(error)

    def damage(self) -> str:
        """Return how many messages could be read, '' for all."""
        if not self._fault:
            return ''
        return f'{self._path.name}: read {self._read} messages, then: {self._fault}'

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(f'{self._path.resolve().as_uri()}?immutable=1', uri=True)
        # Otherwise a file that is shorter than its header says is refused as a whole.
        database.execute('PRAGMA writable_schema = ON')
        return database


_UNPACK = {'': lambda data: data, 'zstd': unzstd, 'lz4': lz4.frame.decompress}


def _storage(file: Path, scratch: Path) -> _Storage:
    if file.suffix == '.zstd':
        file = unpack_file(file, scratch, partly=True)
    return McapRest(file) if file.suffix == '.mcap' else SqliteRest(file)


def _files(path: Path) -> list[Path]:
    """Return the files of a bag in the order of their numbers."""
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.name.endswith(BAG_SUFFIXES)]
    if not files:
        raise SalvageError('no .mcap or .db3 file in the folder')
    return sorted(files, key=lambda file: [
        int(part) if part.isdigit() else part for part in re.split(r'(\d+)', file.name)])


def _counts(storage: _Storage) -> Counter[Channel]:
    """Return how many messages of each channel can be read."""
    numbers = Counter(number for number, _, _ in storage.messages())
    # Descriptions may come behind the messages, where a file's first chunk is damaged.
    return Counter({storage.channels[number]: count for number, count in numbers.items()
                    if number in storage.channels})


def _records_in(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    place = 0
    while place + 9 <= len(data):
        kind, size = struct.unpack_from('<BQ', data, place)
        yield kind, data[place + 9:place + 9 + size]
        place += 9 + size


def _texts(data: memoryview, place: int, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        (size,) = struct.unpack_from('<I', data, place)
        texts.append(bytes(data[place + 4:place + 4 + size]).decode('utf-8', 'replace'))
        place += 4 + size
    return texts


def _definitions(database: sqlite3.Connection) -> dict[str, str]:
    """Return the definitions of types; bags of older releases have none."""
    try:
        return dict(database.execute(
            'SELECT topic_type, encoded_message_definition FROM message_definitions'))
    except sqlite3.OperationalError:
        return {}


def _typestore(channels: Collection[Channel], common_types: Typestore) -> Typestore:
    types: dict[str, Any] = {}
    for channel in channels:
        if channel.definition.startswith(f'{_IDL_RULE}IDL: '):
            for part in channel.definition.split(_IDL_RULE)[1:]:
                types.update(get_types_from_idl(part.split('\n', 1)[1]))
        elif channel.definition:
            types.update(get_types_from_msg(channel.definition, channel.msgtype))
    if not types:
        return common_types
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store
