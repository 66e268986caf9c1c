"""
What an MCAP file says of itself in its metadata records.

rosbag2 puts there what it writes to metadata.yaml, so that a file that was taken out of its
folder still has it. The layout of the file is that of the MCAP specification (footer, summary,
metadata index, metadata), https://mcap.dev/spec.
"""

from collections.abc import Iterator
from pathlib import Path
import struct
from typing import BinaryIO

import yaml

_MAGIC = b'\x89MCAP0\r\n'
_FOOTER, _METADATA, _METADATA_INDEX = 0x02, 0x0C, 0x0D
_HEAD = struct.Struct('<BQ')  # Of a record: what it is, and the length of its content.
_FOOTER_BYTES = _HEAD.size + 20
# More than any summary or record of words takes.
_MOST_BYTES = 64 * 2 ** 20
_ROSBAG2, _ROSBAG2_KEY = 'rosbag2', 'serialized_metadata'


def read_mcap_metadata(path: Path) -> dict[str, str]:
    """
    Return the words in the metadata records of a file by their keys; what comes later counts.

    Of rosbag2's own record it is the custom data (`ros2 bag record --custom-data`). Nothing is
    returned of what is no MCAP, has no such record or is damaged.
    """
    found: dict[str, str] = {}
    try:
        with path.open('rb') as stream:
            for name, entries in _records(stream):
                found.update(_custom_data(entries) if name == _ROSBAG2 else entries)
    except (OSError, ValueError, struct.error, yaml.YAMLError):
        return {}
    return found


def _records(stream: BinaryIO) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and entries of the metadata records that the summary lists."""
    summary = _summary(stream)
    place = 0
    while place < len(summary):
        kind, length = _HEAD.unpack_from(summary, place)
        place += _HEAD.size
        if kind == _METADATA_INDEX:
            (offset,) = struct.unpack_from('<Q', summary, place)
            yield _record(stream, offset)
        place += length


def _summary(stream: BinaryIO) -> bytes:
    stream.seek(0, 2)
    end = stream.tell() - len(_MAGIC) - _FOOTER_BYTES
    if end < len(_MAGIC):
        raise ValueError('expected an MCAP file')
    footer = _bytes(stream, end, _FOOTER_BYTES + len(_MAGIC))
    if footer[0] != _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError('expected an MCAP file with a footer')
    (start,) = struct.unpack_from('<Q', footer, _HEAD.size)
    return _bytes(stream, start, end - start) if start else b''


def _record(stream: BinaryIO, offset: int) -> tuple[str, dict[str, str]]:
    kind, length = _HEAD.unpack(_bytes(stream, offset, _HEAD.size))
    if kind != _METADATA:
        raise ValueError('expected a metadata record')
    content = _bytes(stream, offset + _HEAD.size, length)
    name, place = _words(content, 0)
    (size,) = struct.unpack_from('<I', content, place)
    place += 4
    end, entries = place + size, {}
    while place < end:
        key, place = _words(content, place)
        entries[key], place = _words(content, place)
    return name, entries


def _words(content: bytes, place: int) -> tuple[str, int]:
    """Return the words at a place, and the place behind them."""
    (length,) = struct.unpack_from('<I', content, place)
    end = place + 4 + length
    if end > len(content):
        raise ValueError('expected words within the record')
    return content[place + 4:end].decode(), end


def _bytes(stream: BinaryIO, start: int, length: int) -> bytes:
    if not 0 <= length <= _MOST_BYTES:
        raise ValueError(f'expected at most {_MOST_BYTES} bytes, found {length}')
    stream.seek(start)
    content = stream.read(length)
    if len(content) < length:
        raise ValueError(f'expected {length} bytes at {start}, found {len(content)}')
    return content


def _custom_data(entries: dict[str, str]) -> dict[str, str]:
    content = yaml.safe_load(entries.get(_ROSBAG2_KEY, ''))
    custom = content.get('custom_data') if isinstance(content, dict) else None
    return {str(key): str(value) for key, value in custom.items()} \
        if isinstance(custom, dict) else {}
