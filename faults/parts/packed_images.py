"""JPEG and PNG messages: good ones, ways to damage them, and what may come of each."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
import warnings

import numpy as np
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage

_FORMATS = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'bgr8; png compressed ', '',
            'x' * 100_000, '\u202egepj')
_OTHER_KINDS = (b'GIF89a', b'BM', b'RIFF\0\0\0\0WEBPVP8 ', b'II*\0', b'\0\0\0\x0cjP  \r\n\x87\n',
                b'%PDF-1.7', b'\x80\x04\x95', b'PK\x03\x04', b'\xff\xd8', b'\xff\xd8\xff', b'')


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """
    A message and what must come of it.

    :param expected: 'refused', 'same' as the good one, or 'any': refused, or else the same where
        the data carry checksums (PNG), and a picture of the size in the header where they do not.
    """

    kind: str
    message: CompressedImage
    expected: str


def good_image(rng: np.random.Generator) -> CompressedImage:
    """Return a JPEG or PNG of a random size, colour or grey."""
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    shape = (height, width, 3) if rng.integers(3) else (height, width)
    picture = PillowImage.fromarray(rng.integers(0, 256, shape, np.uint8))
    kind = ('jpeg', 'png')[rng.integers(2)]
    stream = BytesIO()
    options = {'progressive': bool(rng.integers(2))} if kind == 'jpeg' else {}
    picture.save(stream, kind, **options)
    return CompressedImage(format=kind, data=array('B', stream.getvalue()))


def damage(rng: np.random.Generator, good: CompressedImage) -> Damaged:
    """Return a copy of a good message with damage of a drawn kind."""
    kind = tuple(_KINDS)[rng.integers(len(_KINDS))]
    message = CompressedImage(format=good.format, data=array('B', good.data))
    return Damaged(kind=kind, message=message, expected=_KINDS[kind](rng, message))


def header_size(message: CompressedImage) -> tuple[int, int] | None:
    """Return (height, width) as Pillow reads it from the header, None where it reads none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PillowImage.open(BytesIO(message.data.tobytes())) as picture:
                return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError):
        return None


def describe(message: CompressedImage) -> str:
    """Return a message in short."""
    return (f'format {message.format[:40]!r}, {len(message.data)} bytes '
            f'{bytes(message.data[:150]).hex()}')


def _truncated(rng, message):
    message.data = message.data[:int(rng.integers(len(message.data)))]
    if rng.integers(3) == 0:
        message.data.extend([0] * int(rng.integers(1, 200)))
    return 'refused'


def _flipped(rng, message):
    for place in rng.integers(len(message.data), size=int(rng.integers(1, 9))):
        message.data[int(place)] ^= 1 << int(rng.integers(8))
    return 'any'


def _flipped_header(rng, message):
    end = min(len(message.data), 700)
    for place in rng.integers(2, end, size=int(rng.integers(1, 5))):
        message.data[int(place)] = int(rng.integers(256))
    return 'any'


def _huge(rng, message):
    """Write huge sides into the header, in front of the little data there is."""
    place = _place_of_sides(message.data.tobytes())
    sides = np.array([(0, 65535, 65500, 32768, 20000)[rng.integers(5)] for _ in range(2)])
    size = 2 if message.format == 'jpeg' else 4
    for index, side in enumerate(sides.tolist()):
        for byte, value in enumerate(int(side).to_bytes(size, 'big')):
            message.data[place + index * size + byte] = value
    return 'refused'


def _inserted(rng, message):
    place = int(rng.integers(len(message.data)))
    message.data[place:place] = array('B', rng.bytes(int(rng.integers(1, 40))))
    return 'any'


def _cut_out(rng, message):
    place = int(rng.integers(len(message.data)))
    del message.data[place:place + int(rng.integers(1, 40))]
    return 'any'


def _another_kind(rng, message):
    start = _OTHER_KINDS[rng.integers(len(_OTHER_KINDS))]
    message.data = array('B', start + rng.bytes(int(rng.integers(0, 300))))
    return 'refused'


def _another_format(rng, message):
    message.format = _FORMATS[rng.integers(len(_FORMATS))]
    return 'same'


def _depth(rng, message):
    message.format = '16UC1; compressedDepth png'
    return 'refused'


def _filled_up(rng, message):
    message.data.extend([0] * int(rng.integers(1, 5000)))
    return 'same'


_KINDS: dict[str, Callable[[np.random.Generator, CompressedImage], str]] = {
    'truncated': _truncated, 'flipped': _flipped, 'flipped header': _flipped_header,
    'huge': _huge, 'inserted': _inserted, 'cut out': _cut_out, 'another kind': _another_kind,
    'another format': _another_format, 'depth': _depth, 'filled up': _filled_up,
}


def _place_of_sides(data: bytes) -> int:
    if data.startswith(b'\x89PNG'):
        return 16
    return min(data.index(marker) for marker in (b'\xff\xc0', b'\xff\xc2') if marker in data) + 5
