"""Raw camera messages: good ones, ways to spoil them, and what must come of each."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image

# Encoding -> bytes per pixel in its plane, rows of bytes per row of pixels, sides that must be
# even, least pixels per side. Written down once more, so that the product's table is not trusted.
LAYOUTS = {
    'rgb8': (3, 1, '', 1), 'bgr8': (3, 1, '', 1), 'rgba8': (4, 1, '', 1),
    'bgra8': (4, 1, '', 1), 'mono8': (1, 1, '', 1), '8UC1': (1, 1, '', 1),
    '8UC3': (3, 1, '', 1), 'mono16': (2, 1, '', 1),
    **{f'bayer_{order}8': (1, 1, '', 3) for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{order}16': (2, 1, '', 3) for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
    'yuv422': (2, 1, 'w', 1), 'uyvy': (2, 1, 'w', 1), 'yuv422_yuy2': (2, 1, 'w', 1),
    'yuyv': (2, 1, 'w', 1), 'nv12': (1, 1.5, 'wh', 1), 'nv21': (1, 1.5, 'wh', 1),
}
ENCODINGS = tuple(LAYOUTS)
_UNKNOWN = ('', 'RGB8', 'rgb8 ', 'rgb16', '32FC1', '16UC1', '8UC4', 'jpeg', 'rgb8\0', 'rgb8\n',
            'x' * 100_000, '\u202e8bgr', '../rgb8', 'bayer_rggb', 'nv12;bgr8', 'None')
_LONGEST = 2 ** 32 - 1
_MOST_SIDE, _MOST_PIXELS = 16384, 2 ** 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """A message, and whether it must look exactly as the good one it was made from."""

    kind: str
    message: Image
    same_picture: bool = False


def good_image(rng: np.random.Generator) -> Image:
    """Return a message of a random encoding, size, padding and content."""
    encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
    width, height = (2 * int(side) for side in rng.integers(2, 13, 2))
    return _image(rng, encoding, width, height, int(rng.integers(3)) * 4)


def spoil(rng: np.random.Generator, good: Image) -> Spoiled:
    """Return a copy of a good message with one thing made wrong, or made otherwise."""
    kind = tuple(_KINDS)[rng.integers(len(_KINDS))]
    message = _copy(good)
    same = _KINDS[kind](rng, message)
    return Spoiled(kind=kind, message=message, same_picture=bool(same))


def is_whole(message: Image) -> bool:
    """Tell whether a message is one: all of its fields fit each other and its data."""
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        return False
    n_bytes, rows, even, least = layout
    height, width = message.height, message.width
    return (least <= min(height, width) and max(height, width) <= _MOST_SIDE
            and height * width <= _MOST_PIXELS
            and not ('w' in even and width % 2) and not ('h' in even and height % 2)
            and message.step >= width * n_bytes
            and len(message.data) == int(height * rows) * message.step)


def pixels(message: Image) -> np.ndarray | None:
    """Return what a whole message shows, (H, W, 3) uint8; None where no formula is at hand."""
    encoding = message.encoding
    plane = _plane(message)
    if encoding == 'rgb8':
        return plane
    if encoding in ('bgr8', '8UC3', 'bgra8'):
        return plane[..., 2::-1]
    if encoding == 'rgba8':
        return plane[..., :3]
    if encoding in ('mono8', '8UC1'):
        return np.repeat(plane, 3, axis=2)
    if encoding == 'mono16':
        high, low = (0, 1) if message.is_bigendian else (1, 0)
        values = plane[..., high] * 256.0 + plane[..., low]
        return np.repeat(np.rint(values / 257.0).astype(np.uint8)[..., None], 3, axis=2)
    return None


def describe(message: Image) -> str:
    """Return the fields of a message in short."""
    return (f'encoding {message.encoding[:40]!r}, width {message.width}, height '
            f'{message.height}, step {message.step}, is_bigendian {message.is_bigendian}, '
            f'{len(message.data)} bytes {bytes(message.data[:24]).hex()}')


def _wrong_step(rng, message):
    steps = (0, 1, message.step - 1, message.step + 1, message.step * 2, message.step // 2,
             _LONGEST, int(rng.integers(_LONGEST)))
    message.step = steps[rng.integers(len(steps))]


def _wrong_length(rng, message):
    count = len(message.data)
    lengths = (0, 1, count - 1, count + 1, count // 2, count * 2, int(rng.integers(count)))
    wanted = lengths[rng.integers(len(lengths))]
    message.data = (message.data * 2)[:wanted]


def _empty(rng, message):
    which = int(rng.integers(1, 4))
    message.height = 0 if which & 1 else message.height
    message.width = 0 if which & 2 else message.width
    if rng.integers(2):
        message.data = array('B')


def _huge(rng, message):
    sides = (65535, 16385, 2 ** 31 - 1, 2 ** 31, _LONGEST, 2 ** 16, int(rng.integers(2 ** 32)))
    which = int(rng.integers(1, 4))
    message.height = sides[rng.integers(len(sides))] if which & 1 else message.height
    message.width = sides[rng.integers(len(sides))] if which & 2 else message.width
    if rng.integers(2):
        # As a product in 32 bits would have it.
        message.step = (message.width * LAYOUTS[message.encoding][0]) % 2 ** 32


def _unknown_encoding(rng, message):
    message.encoding = _UNKNOWN[rng.integers(len(_UNKNOWN))]


def _another_encoding(rng, message):
    message.encoding = ENCODINGS[rng.integers(len(ENCODINGS))]


def _flipped_data(rng, message):
    for place in rng.integers(len(message.data), size=int(rng.integers(1, 9))):
        message.data[int(place)] ^= 1 << int(rng.integers(8))


def _flipped_fields(rng, message):
    for _ in range(int(rng.integers(1, 4))):
        name = ('height', 'width', 'step')[rng.integers(3)]
        setattr(message, name, getattr(message, name) ^ (1 << int(rng.integers(32))))


def _other_order(rng, message):
    # 16 bits the other way round show the same picture; of 8 bits there is no order.
    if LAYOUTS[message.encoding][0] == 2 and message.encoding.endswith('16'):
        used = message.width * 2
        for start in range(0, len(message.data), message.step):
            row = message.data[start:start + used]
            row[0::2], row[1::2] = row[1::2], row[0::2]
            message.data[start:start + used] = row
    message.is_bigendian = 0 if message.is_bigendian else int((1, 2, 255)[rng.integers(3)])
    return True


def _harmless(rng, message):
    message.header.frame_id = ('', 'camera' * 1000, '\u202e')[rng.integers(3)]
    used = int(message.width * LAYOUTS[message.encoding][0])
    for start in range(used, len(message.data), message.step):
        for place in range(start, start + message.step - used):
            message.data[place] = int(rng.integers(256))
    return True


def _wrong_side(rng, message):
    name = ('height', 'width')[rng.integers(2)]
    setattr(message, name, max(0, getattr(message, name) + (-2, -1, 1, 2)[rng.integers(4)]))


_KINDS: dict[str, Callable[[np.random.Generator, Image], bool | None]] = {
    'wrong step': _wrong_step, 'wrong length': _wrong_length, 'empty': _empty, 'huge': _huge,
    'unknown encoding': _unknown_encoding, 'another encoding': _another_encoding,
    'flipped data': _flipped_data, 'flipped fields': _flipped_fields,
    'other byte order': _other_order, 'harmless': _harmless, 'wrong side': _wrong_side,
}


def _image(
    rng: np.random.Generator, encoding: str, width: int, height: int, padding: int,
) -> Image:
    n_bytes, rows, _, _ = LAYOUTS[encoding]
    step = width * n_bytes + padding
    data = array('B', rng.bytes(int(height * rows) * step))
    return Image(height=height, width=width, encoding=encoding, step=step, data=data,
                 is_bigendian=int(rng.integers(2)))


def _copy(message: Image) -> Image:
    return Image(height=message.height, width=message.width, encoding=message.encoding,
                 step=message.step, is_bigendian=message.is_bigendian,
                 data=array('B', message.data))


def _plane(message: Image) -> np.ndarray:
    n_bytes, rows, _, _ = LAYOUTS[message.encoding]
    data = np.frombuffer(message.data, np.uint8).reshape(int(message.height * rows), -1)
    return data[:, :message.width * n_bytes].reshape(len(data), message.width, n_bytes)
