"""Camera messages to RGB arrays, and the preparation that training and execution share.

Every encoding gives the same pixels whether cv_bridge or rosbags-image is installed: where the
two agree one of them converts (`library` below), where they differ OpenCV is called here:

- rgb8 needs no conversion, so it is a view of the message and nothing is copied;
- 16-bit images are scaled by 255/65535 and rounded (cv_bridge rounds, rosbags-image cuts off);
- nv12 and nv21 are refused by cv_bridge and get a wrong height from rosbags-image;
- 8UC3 has no stated order. cv_bridge writes it for an OpenCV image of unstated encoding, which
  is BGR, so it is read as bgr8; 8UC1 is read as mono8.
"""

from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np

from vla_policy_node import rlds_resizing
from vla_policy_node.image_decoding import check_size
from vla_policy_node.image_decoding import convert_8bit
from vla_policy_node.image_decoding import decode_compressed
from vla_policy_node.image_decoding import ImageError

__all__ = ['Box', 'ENCODINGS', 'ImageError', 'centre_box', 'prepare', 'to_rgb']

# What a crop keeps: (top, left, height, width), pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoding:
    """How the bytes of an encoding lie, and how they become RGB.

    code: the OpenCV conversion to call here; None when `library` names what the library is told.
    rows: rows of bytes per row of pixels (3/2 for the planes of nv12).
    even: 'width', 'both' or '' - which sides must be even for the chroma samples.
    smallest: pixels per side from which OpenCV converts: a Bayer pixel needs its neighbours.
    """

    bytes_per_pixel: int
    code: int | None = None
    library: str = ''
    rows: float = 1
    even: str = ''
    smallest: int = 1


def _library(name: str, bytes_per_pixel: int, **fields: Any) -> _Encoding:
    return _Encoding(bytes_per_pixel=bytes_per_pixel, library=name, **fields)


# OpenCV names a Bayer pattern by the second row's second and third pixel: RGGB is its BayerBG.
_ENCODINGS = {
    'rgb8': _Encoding(bytes_per_pixel=3),
    'bgr8': _library('bgr8', 3),
    'rgba8': _library('rgba8', 4),
    'bgra8': _library('bgra8', 4),
    'mono8': _library('mono8', 1),
    '8UC1': _library('mono8', 1),
    '8UC3': _library('bgr8', 3),
    'mono16': _Encoding(bytes_per_pixel=2, code=cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': _library('bayer_rggb8', 1, smallest=3),
    'bayer_bggr8': _library('bayer_bggr8', 1, smallest=3),
    'bayer_gbrg8': _library('bayer_gbrg8', 1, smallest=3),
    'bayer_grbg8': _library('bayer_grbg8', 1, smallest=3),
    'bayer_rggb16': _Encoding(bytes_per_pixel=2, code=cv2.COLOR_BayerBG2RGB, smallest=3),
    'bayer_bggr16': _Encoding(bytes_per_pixel=2, code=cv2.COLOR_BayerRG2RGB, smallest=3),
    'bayer_gbrg16': _Encoding(bytes_per_pixel=2, code=cv2.COLOR_BayerGR2RGB, smallest=3),
    'bayer_grbg16': _Encoding(bytes_per_pixel=2, code=cv2.COLOR_BayerGB2RGB, smallest=3),
    'yuv422': _library('yuv422', 2, even='width'),
    'uyvy': _library('yuv422', 2, even='width'),
    'yuv422_yuy2': _library('yuv422_yuy2', 2, even='width'),
    'yuyv': _library('yuv422_yuy2', 2, even='width'),
    'nv12': _Encoding(bytes_per_pixel=1, code=cv2.COLOR_YUV2RGB_NV12, rows=1.5, even='both'),
    'nv21': _Encoding(bytes_per_pixel=1, code=cv2.COLOR_YUV2RGB_NV21, rows=1.5, even='both'),
}
ENCODINGS = tuple(_ENCODINGS)

_INTERPOLATIONS = {
    'area': cv2.INTER_AREA,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'lanczos': cv2.INTER_LANCZOS4,
}


def to_rgb(message: Any) -> np.ndarray:
    """Convert a sensor_msgs Image or CompressedImage to (H, W, 3) uint8 RGB.

    Anything with the fields of the message will do; `format` tells a compressed one. The result
    of rgb8 without row padding is a read-only view of message.data. 16-bit images keep the full
    range: 0 becomes 0 and 65535 becomes 255, rounded.
    Raises ImageError for unknown encodings, lengths that do not fit, empty or absurd sizes and
    damaged data; nothing outside message.data is read.
    """
    data = _bytes_of(message.data)
    if hasattr(message, 'format'):
        return decode_compressed(data, message.format)
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(f'expected an encoding of {", ".join(ENCODINGS)}, '
                         f'found {message.encoding[:64]!r}')
    rows = _rows_of(message, data, encoding)
    if message.encoding == 'rgb8':
        return rows.reshape(message.height, message.width, 3)
    if encoding.library:
        return convert_8bit(rows, message.width, encoding.library)
    if encoding.bytes_per_pixel == 2:
        return _convert_16bit(rows, bool(message.is_bigendian), encoding.code)
    return cv2.cvtColor(np.ascontiguousarray(rows), encoding.code)


def prepare(rgb: np.ndarray, camera: Any, *, box: Box | None = None) -> np.ndarray:
    """Crop and resize (H, W, 3) uint8 RGB the way `camera` (a CameraConfig) says.

    camera.crop_area: share of the area kept by a centre crop; each side becomes
    side * sqrt(crop_area), rounded. camera.size: (height, width) to resize to, or None.
    camera.resize: 'area', 'bilinear', 'bicubic' or 'lanczos', as OpenCV does them: only 'area'
    averages over the pixels it leaves out when shrinking. 'rlds' resizes first and crops
    afterwards, to parts of a pixel, as rlds_resizing says.
    box: what to keep instead of the centre, for training with random crops; whole inside.
    Training and execution both call this. With nothing to do it returns the array it was given.
    """
    if not (isinstance(rgb, np.ndarray) and rgb.dtype == np.uint8 and rgb.ndim == 3
            and rgb.shape[2] == 3 and rgb.size):
        found = f'{getattr(rgb, "dtype", type(rgb).__name__)} {np.shape(rgb)}'
        raise ImageError(f'expected a uint8 image of shape (H, W, 3), found {found}')
    height, width = rgb.shape[:2]
    if camera.resize == 'rlds':
        return _as_rlds(rgb, camera, box)
    cropped = _crop(rgb, box or centre_box(height, width, camera.crop_area))
    if camera.size is None or tuple(camera.size) == cropped.shape[:2]:
        return cropped
    if camera.resize not in _INTERPOLATIONS:
        raise ImageError(f'expected resize to be one of {", ".join(_INTERPOLATIONS)}, rlds, '
                         f'found {camera.resize!r}')
    height, width = camera.size
    return cv2.resize(cropped, (width, height), interpolation=_INTERPOLATIONS[camera.resize])


def _as_rlds(rgb: np.ndarray, camera: Any, box: Box | None) -> np.ndarray:
    small = rlds_resizing.resize(rgb, camera.size)
    if box is not None:
        _check_inside(rgb, box)
        (top, left, kept_height, kept_width), (height, width) = box, rgb.shape[:2]
        return rlds_resizing.zoom(
            small, (top / height, left / width, kept_height / height, kept_width / width))
    if camera.crop_area == 1.0:
        return small
    side = math.sqrt(camera.crop_area)
    return rlds_resizing.zoom(small, ((1.0 - side) / 2, (1.0 - side) / 2, side, side))


def centre_box(height: int, width: int, area: float) -> Box:
    """Return the box of a centre crop that keeps a share `area`, in (0, 1], of the area."""
    if area == 1.0:
        return 0, 0, height, width
    if not 0.0 < area < 1.0:
        raise ImageError(f'expected crop_area above 0 and at most 1, found {area}')
    kept_height, kept_width = (max(1, round(side * math.sqrt(area))) for side in (height, width))
    return (height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width


def _crop(rgb: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    if (height, width) == rgb.shape[:2]:
        return rgb
    _check_inside(rgb, box)
    return np.ascontiguousarray(rgb[top:top + height, left:left + width])


def _check_inside(rgb: np.ndarray, box: Box) -> None:
    top, left, height, width = box
    inside = rgb[top:top + height, left:left + width]
    if min(top, left) < 0 or inside.shape[:2] != (height, width):
        raise ImageError(f'expected a crop inside the {rgb.shape[0]} x {rgb.shape[1]} image, '
                         f'found top, left, height, width {box}')


def _bytes_of(data: Any) -> np.ndarray:
    """Return a read-only (N,) uint8 view of a buffer."""
    try:
        view = np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ImageError('expected image data in a contiguous buffer (array, bytes, ndarray), '
                         f'found {type(data).__name__}: {error}') from error
    view.flags.writeable = False
    return view


def _rows_of(message: Any, data: np.ndarray, encoding: _Encoding) -> np.ndarray:
    """Check sizes and return the rows (H * rows, used bytes per row) without their padding."""
    height, width, step = message.height, message.width, message.step
    check_size(height, width)
    sides = {'width': (width,), 'both': (width, height)}.get(encoding.even, ())
    if any(side % 2 for side in sides):
        raise ImageError(f'expected even sides for {message.encoding}, found width {width}, '
                         f'height {height}')
    if min(height, width) < encoding.smallest:
        raise ImageError(f'expected at least {encoding.smallest} pixels per side for '
                         f'{message.encoding}, found width {width}, height {height}')
    used = width * encoding.bytes_per_pixel
    if step < used:
        raise ImageError(f'expected a step of at least {used} bytes for {message.encoding} of '
                         f'width {width}, found {step}')
    count = int(height * encoding.rows)
    if data.size != count * step:
        raise ImageError(f'expected {count * step} bytes of data ({count} rows of {step}), '
                         f'found {data.size}')
    return data.reshape(count, step)[:, :used]


def _convert_16bit(rows: np.ndarray, bigendian: bool, code: int) -> np.ndarray:
    order = '>' if bigendian else '<'
    pixels = np.ascontiguousarray(rows).view(f'{order}u2').astype(np.uint16)
    rgb = cv2.cvtColor(pixels, code)
    return cv2.convertScaleAbs(rgb, alpha=255.0 / 65535.0)
