"""Writes metadata records of MCAP, and files that hold nothing else."""

from pathlib import Path
import struct

MAGIC = b'\x89MCAP0\r\n'


def words(text: str) -> bytes:
    return struct.pack('<I', len(text.encode())) + text.encode()


def record(kind: int, content: bytes) -> bytes:
    return struct.pack('<BQ', kind, len(content)) + content


def metadata(name: str, entries: dict[str, str]) -> bytes:
    pairs = b''.join(words(key) + words(value) for key, value in entries.items())
    return record(0x0C, words(name) + struct.pack('<I', len(pairs)) + pairs)


def index(offset: int, content: bytes, name: str) -> bytes:
    return record(0x0D, struct.pack('<QQ', offset, len(content)) + words(name))


def footer(summary_start: int) -> bytes:
    return record(0x02, struct.pack('<QQI', summary_start, 0, 0)) + MAGIC


def write(path: Path, *records: tuple[str, dict[str, str]]) -> Path:
    """Write a file with metadata records alone."""
    data, indices = MAGIC + record(0x01, words('ros2') + words('test')), b''
    for name, entries in records:
        content = metadata(name, entries)
        indices += index(len(data), content, name)
        data += content
    data += record(0x0F, struct.pack('<I', 0))
    path.write_bytes(data + indices + footer(len(data) if indices else 0))
    return path


def add(path: Path, name: str, entries: dict[str, str]) -> None:
    """Add a record to a file with a summary; it comes to lie behind the summary's own."""
    whole = path.read_bytes()
    tail = whole[-len(footer(0)):]
    (summary_start,) = struct.unpack_from('<Q', tail, 9)
    body, content = whole[:-len(tail)], metadata(name, entries)
    path.write_bytes(
        body + content + index(len(body), content, name) + footer(summary_start))
