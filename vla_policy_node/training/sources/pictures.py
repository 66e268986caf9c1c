"""Picture files of data sets, of any format that Pillow reads, to RGB arrays."""

import io
from pathlib import Path
import struct

import numpy as np
from PIL import Image
from PIL import ImageOps

from vla_policy_node.training.sources.records import RecordError

# What Pillow's decoders raise for damaged or absurdly large data.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error,
           Image.DecompressionBombError)

SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'})


def read_picture(path: Path, where: str) -> np.ndarray:
    """Read a file to (H, W, 3) uint8 RGB; RecordError naming `where` and the file otherwise."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, 'strerror', None) or error
        raise RecordError(f'{where}: expected a picture at {path}, found none that can be opened '
                          f'({reason}); check the folder of pictures') from error
    return decode_picture(data, f'{where}, {path}')


def decode_picture(data: bytes, where: str) -> np.ndarray:
    """
    Decode a picture to (H, W, 3) uint8 RGB; RecordError naming `where` otherwise.

    Turned as its EXIF orientation says, the way people saw it who wrote the question; the first
    frame of a moving one; transparency dropped; 16 bits become 8. Truncated data is refused.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except _DAMAGE as error:
        reason = ' '.join(str(error).split())
        raise RecordError(f'{where}: expected a picture, found {len(data)} bytes that cannot be '
                          f'decoded ({reason}); replace or remove it') from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith('I'):  # Pillow's own conversion would make everything white
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert('RGB'))
