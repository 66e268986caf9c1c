"""Unpacks zstd, which rosbag2 compresses messages and files with."""

from pathlib import Path
import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

_BLOCK = 1 << 20


def unzstd(data: bytes | memoryview) -> bytes:
    """Return unpacked bytes; zstd.ZstdError for damaged ones."""
    return zstd.decompress(data)


def unpack_file(path: Path, folder: Path, *, partly: bool = False) -> Path:
    """
    Unpack 'x.mcap.zstd' to 'x.mcap' in a folder and return it.

    partly: keep what comes before the damage. Raises zstd.ZstdError or EOFError otherwise.
    """
    target = folder / path.stem
    with zstd.open(path, 'rb') as packed, target.open('wb') as unpacked:
        try:
            # One step of the unpacker at a time: what a step gives is kept if the next one fails.
            while block := packed.read1(_BLOCK):
                unpacked.write(block)
        except (zstd.ZstdError, EOFError):
            if not partly:
                raise
    return target
