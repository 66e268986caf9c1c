"""The two kinds of decoding that a library does: 8-bit pixel formats, and JPEG or PNG data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
import sys
from typing import Any

import cv2
import numpy as np

MAX_SIDE = 16384
MAX_PIXELS = 2 ** 26

_JPEG_START = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'
# Start-of-frame markers: C0 to CF without the Huffman, arithmetic and reserved ones.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageError(ValueError):
    """An image that cannot be converted; the message says what was expected and found."""


def check_size(height: int, width: int) -> None:
    """Refuse empty images and sizes that no camera has (they would exhaust the memory)."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise ImageError(
            f'expected an image of 1 to {MAX_SIDE} pixels per side and at most {MAX_PIXELS} '
            f'pixels, found width {width}, height {height}')


@dataclass(frozen=True, slots=True, kw_only=True)
class _TightImage:
    """What the libraries need of a sensor_msgs/Image: native byte order, no row padding.

    Given only such images they agree with each other; left alone, rosbags-image takes padding for
    pixels, and cv_bridge does where the step is not a multiple of the pixel.
    """

    height: int
    width: int
    encoding: str
    step: int
    data: np.ndarray
    is_bigendian: bool = sys.byteorder == 'big'


def convert_8bit(rows: np.ndarray, width: int, encoding: str) -> np.ndarray:
    """Convert rows (H, bytes per row) uint8 without padding to (H, width, 3) uint8 RGB.

    encoding: a name that cv_bridge and rosbags-image both know and convert with the same OpenCV
    call: bgr8, rgba8, bgra8, mono8, bayer_*8, yuv422 or yuv422_yuy2.
    """
    rows = np.ascontiguousarray(rows)
    image = _TightImage(
        height=rows.shape[0], width=width, encoding=encoding, step=rows.shape[1],
        data=rows.reshape(-1))
    _, convert = library()
    try:
        return convert(image)
    except (cv2.error, TypeError) as error:  # CvBridgeError is a TypeError
        raise ImageError(f'expected a convertible {encoding} image, found one of width {width}, '
                         f'height {rows.shape[0]} that is refused: {_one_line(error)}') from error


@cache
def library() -> tuple[str, Callable[[Any], np.ndarray]]:
    """Return name and function of the library that converts pixels: cv_bridge where it works.

    A cv_bridge built for another NumPy imports but cannot convert, so it is tried on one pixel.
    """
    for name, load in (('cv_bridge', _load_cv_bridge), ('rosbags-image', _load_rosbags_image)):
        try:
            convert = load()
            pixel = convert(_TightImage(
                height=1, width=1, encoding='bgr8', step=3,
                data=np.array([1, 2, 3], dtype=np.uint8)))
        except (ImportError, AttributeError):
            continue
        if pixel.tolist() == [[[3, 2, 1]]]:
            return name, convert
    raise ImportError(
        'expected cv_bridge (apt install ros-$ROS_DISTRO-cv-bridge) or rosbags-image '
        "(pip install 'rosbags-image[opencv-headless]') to convert images, found neither")


def _load_cv_bridge() -> Callable[[Any], np.ndarray]:
    from cv_bridge import CvBridge
    bridge = CvBridge()
    return lambda image: bridge.imgmsg_to_cv2(image, desired_encoding='rgb8')


def _load_rosbags_image() -> Callable[[Any], np.ndarray]:
    from rosbags.image import image_to_cvimage
    return lambda image: image_to_cvimage(image, 'rgb8')


def decode_compressed(data: np.ndarray, image_format: str) -> np.ndarray:
    """Decode JPEG or PNG data (N,) uint8 to (H, W, 3) uint8 RGB.

    The kind is told from the data, image_format only explains errors. OpenCV decodes it in both
    environments, because the two libraries differ: grey images are refused by both, EXIF
    orientation is followed by one. Here grey becomes RGB, transparency is dropped, 16 bits become
    8, and EXIF orientation is ignored, so that pixels stay as the camera sent them.
    Raises ImageError for other kinds, truncated data, absurd sizes and those that the data of a
    JPEG cannot fill, before decoding.
    """
    raw = data.tobytes()
    if 'compressedDepth' in image_format:
        raise ImageError(f'expected a colour image, found depth in format {image_format!r}')
    if raw.startswith(_JPEG_START):
        size = _jpeg_size(raw)
        # Some cameras fill up the buffer with zeros behind the end marker.
        complete = raw.rstrip(b'\0').endswith(_JPEG_END)
    elif raw.startswith(_PNG_START):
        size = _png_size(raw)
        complete = raw.rstrip(b'\0').endswith(_PNG_END)
    else:
        raise ImageError(f'expected JPEG or PNG data, found {len(raw)} bytes starting with '
                         f'{raw[:4].hex() or "nothing"} in format {image_format[:64]!r}')
    if size is None or not complete:
        raise ImageError(f'expected complete {image_format[:64]!r} data, found {len(raw)} bytes '
                         'without an end marker or size: truncated')
    check_size(*size)
    if raw.startswith(_JPEG_START):
        _check_jpeg_amount(len(raw), size)
    return _decode(data, size)


def _check_jpeg_amount(length: int, size: tuple[int, int]) -> None:
    """Refuse less data than one bit for each block of 8 x 8 pixels, the least of a whole picture.

    OpenCV would fill what is missing with grey, for 64 megapixels in 2 s.
    """
    height, width = size
    least = -(-height // 8) * -(-width // 8) // 8
    if length < least:
        raise ImageError(f'expected at least {least} bytes of JPEG data for width {width}, height'
                         f' {height}, found {length}: truncated, or another size than its header'
                         ' says')


def _decode(data: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError('expected decodable image data, found corrupt data: '
                         f'{_one_line(error)}') from error
    if bgr is None or bgr.shape[:2] != size:
        raise ImageError(f'expected an image of height {size[0]}, width {size[1]} as its header '
                         'says, found corrupt data')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())


def _png_size(raw: bytes) -> tuple[int, int] | None:
    if raw[12:16] != b'IHDR' or len(raw) < 24:
        return None
    return int.from_bytes(raw[20:24], 'big'), int.from_bytes(raw[16:20], 'big')


def _jpeg_size(raw: bytes) -> tuple[int, int] | None:
    """Return (height, width) from the first start-of-frame segment, None where there is none."""
    at = 2
    while at + 9 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _JPEG_FRAMES:
            height = int.from_bytes(raw[at + 5:at + 7], 'big')
            return height, int.from_bytes(raw[at + 7:at + 9], 'big')
        at += 2 + int.from_bytes(raw[at + 2:at + 4], 'big')
    return None
