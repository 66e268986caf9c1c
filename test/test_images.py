"""Camera messages become RGB: the same pixels whichever library converts, and never a crash."""

from array import array
from pathlib import Path
import re
import sys
from types import ModuleType
from types import SimpleNamespace

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from vla_policy_node import image_decoding
from vla_policy_node.images import ENCODINGS
from vla_policy_node.images import ImageError
from vla_policy_node.images import prepare
from vla_policy_node.images import to_rgb

DOCUMENT = Path(__file__).parents[1] / 'docs' / 'images.md'
ROWS = {'nv12': 1.5, 'nv21': 1.5}


def bytes_per_pixel(encoding):
    """Return the bytes of one pixel in its plane, from the name alone."""
    if encoding in ('rgb8', 'bgr8', '8UC3'):
        return 3
    if encoding in ('rgba8', 'bgra8'):
        return 4
    return 2 if encoding.endswith('16') or encoding[:3] in ('yuv', 'yuy', 'uyv') else 1


def image(encoding, height, width, data, *, step=None, is_bigendian=0):
    """Return an Image with the fields of sensor_msgs."""
    if step is None:
        step = width * bytes_per_pixel(encoding)
    return SimpleNamespace(height=height, width=width, encoding=encoding, step=step,
                           is_bigendian=is_bigendian, data=array('B', bytes(data)))


def random_image(encoding, height, width, *, padding=0, seed=0):
    """Return an Image of random bytes, with padding bytes at the end of every row."""
    step = width * bytes_per_pixel(encoding) + padding
    count = int(height * ROWS.get(encoding, 1)) * step
    data = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return image(encoding, height, width, data.tobytes(), step=step)


def compressed(extension, picture, *parameters):
    """Return a CompressedImage of a BGR or grey picture."""
    data = cv2.imencode(extension, picture, parameters)[1].tobytes()
    return SimpleNamespace(format=extension[1:], data=array('B', data))


# What cv_bridge's cvtColor2 does for each encoding, from its table of conversions.
CV_BRIDGE_CODES = {
    'mono8': cv2.COLOR_GRAY2RGB, 'bgr8': cv2.COLOR_BGR2RGB, 'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB, 'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2, 'bayer_rggb8': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr8': cv2.COLOR_BayerRG2RGB, 'bayer_gbrg8': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg8': cv2.COLOR_BayerGB2RGB,
}
CHANNELS = {'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'yuv422': 2, 'yuv422_yuy2': 2}


class FakeCvBridge:
    """Behaves as the published CvBridge.imgmsg_to_cv2 does for 8-bit encodings."""

    calls = 0

    def imgmsg_to_cv2(self, message, desired_encoding='passthrough'):
        """Convert as cv_bridge: rows of step bytes, cut to the width, then one cvtColor."""
        assert desired_encoding == 'rgb8'
        FakeCvBridge.calls += 1
        if message.encoding not in CV_BRIDGE_CODES:
            raise TypeError(f'Unrecognized image encoding [{message.encoding}]')
        channels = CHANNELS.get(message.encoding, 1)
        shape = (message.height, message.step // channels)
        shape = shape if channels == 1 else (*shape, channels)
        pixels = np.ndarray(shape, np.uint8, buffer=message.data)
        pixels = np.ascontiguousarray(pixels[:, :message.width])
        if message.is_bigendian == (sys.byteorder == 'little'):
            raise AttributeError('newbyteorder was removed from the ndarray class in NumPy 2.0')
        return cv2.cvtColor(pixels, CV_BRIDGE_CODES[message.encoding])


@pytest.fixture(params=['rosbags-image', 'cv_bridge'])
def library(request, monkeypatch):
    """Run a test with each of the two libraries in use."""
    fake = ModuleType('cv_bridge')
    fake.CvBridge = FakeCvBridge
    # None in sys.modules makes an import fail, as on a machine without ROS.
    monkeypatch.setitem(
        sys.modules, 'cv_bridge', fake if request.param == 'cv_bridge' else None)
    image_decoding.library.cache_clear()
    yield request.param
    image_decoding.library.cache_clear()


def test_cv_bridge_is_used_where_it_is_installed_and_rosbags_image_elsewhere(library):
    assert image_decoding.library()[0] == library
    before = FakeCvBridge.calls
    to_rgb(random_image('bgr8', 4, 4))
    assert (FakeCvBridge.calls > before) == (library == 'cv_bridge')


def test_a_cv_bridge_built_for_another_numpy_is_not_used(monkeypatch):
    class Broken:
        def imgmsg_to_cv2(self, message, desired_encoding):
            raise ImportError('numpy.core.multiarray failed to import')
    fake = ModuleType('cv_bridge')
    fake.CvBridge = Broken
    monkeypatch.setitem(sys.modules, 'cv_bridge', fake)
    image_decoding.library.cache_clear()
    assert image_decoding.library()[0] == 'rosbags-image'
    image_decoding.library.cache_clear()


def test_without_either_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    monkeypatch.setitem(sys.modules, 'rosbags.image', None)
    image_decoding.library.cache_clear()
    with pytest.raises(ImportError, match='apt install ros-.*pip install'):
        to_rgb(random_image('bgr8', 4, 4))
    image_decoding.library.cache_clear()


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_pixels_do_not_depend_on_the_library_or_on_padding(encoding, library, monkeypatch):
    message = random_image(encoding, 6, 8)
    rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.step)
    padded = np.pad(rows, ((0, 0), (0, 5)), constant_values=99)
    got = to_rgb(message)
    assert got.shape == (6, 8, 3) and got.dtype == np.uint8
    again = to_rgb(image(encoding, 6, 8, padded.tobytes(), step=message.step + 5))
    assert (again == got).all()
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    image_decoding.library.cache_clear()
    assert (to_rgb(message) == got).all()


@pytest.mark.parametrize(('encoding', 'data', 'rgb'), [
    ('rgb8', [1, 2, 3], [1, 2, 3]),
    ('bgr8', [1, 2, 3], [3, 2, 1]),
    ('8UC3', [1, 2, 3], [3, 2, 1]),
    ('rgba8', [1, 2, 3, 4], [1, 2, 3]),
    ('bgra8', [1, 2, 3, 4], [3, 2, 1]),
    ('mono8', [7], [7, 7, 7]),
    ('8UC1', [7], [7, 7, 7]),
])
def test_channels_come_out_in_the_order_red_green_blue(encoding, data, rgb, library):
    assert to_rgb(image(encoding, 1, 1, data)).tolist() == [[rgb]]


@pytest.mark.parametrize(('value', 'grey'), [
    (0, 0), (128, 0), (129, 1), (0x1234, 18), (65535, 255)])
def test_mono16_is_scaled_to_the_full_range_and_rounded_in_both_byte_orders(value, grey):
    little = image('mono16', 1, 1, value.to_bytes(2, 'little'))
    big = image('mono16', 1, 1, value.to_bytes(2, 'big'), is_bigendian=1)
    assert to_rgb(little).tolist() == to_rgb(big).tolist() == [[[grey] * 3]]


@pytest.mark.parametrize(('name', 'pattern'), [
    ('rggb', ['red', 'green', 'green', 'blue']), ('bggr', ['blue', 'green', 'green', 'red']),
    ('gbrg', ['green', 'blue', 'red', 'green']), ('grbg', ['green', 'red', 'blue', 'green'])])
@pytest.mark.parametrize('bits', [8, 16])
def test_a_bayer_mosaic_of_one_colour_gives_that_colour(name, pattern, bits, library):
    levels = {'red': 200, 'green': 100, 'blue': 50}
    tile = np.array([levels[colour] for colour in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (4, 4)).astype(np.uint8)
    if bits == 16:
        mosaic = mosaic.astype('<u2') * 257
    rgb = to_rgb(image(f'bayer_{name}{bits}', 8, 8, mosaic.tobytes()))
    assert (rgb == [200, 100, 50]).all()


@pytest.mark.parametrize(('encoding', 'data'), [
    ('yuv422', [90, 81, 240, 81]), ('uyvy', [90, 81, 240, 81]),
    ('yuv422_yuy2', [81, 90, 81, 240]), ('yuyv', [81, 90, 81, 240]),
])
def test_packed_yuv_red_is_red(encoding, data, library):
    rgb = to_rgb(image(encoding, 2, 4, data * 4))
    assert np.abs(rgb.astype(int) - [254, 0, 0]).max() <= 2


@pytest.mark.parametrize(('encoding', 'chroma'), [('nv12', [90, 240]), ('nv21', [240, 90])])
def test_planar_yuv_keeps_its_height_and_red_is_red(encoding, chroma):
    rgb = to_rgb(image(encoding, 480, 640, [81] * (480 * 640) + chroma * (240 * 320)))
    assert rgb.shape == (480, 640, 3)
    assert np.abs(rgb.astype(int) - [254, 0, 0]).max() <= 2


def test_rgb8_without_padding_is_a_read_only_view_of_the_message():
    message = random_image('rgb8', 4, 5)
    rgb = to_rgb(message)
    assert np.shares_memory(rgb, np.frombuffer(message.data, np.uint8))
    assert not rgb.flags.writeable
    message.data[0] = 255 - message.data[0]
    assert rgb[0, 0, 0] == message.data[0]


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview,
                                  lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_be_any_contiguous_buffer(kind):
    message = random_image('rgb8', 2, 2)
    expected = to_rgb(message)
    message.data = kind(bytes(message.data))
    assert (to_rgb(message) == expected).all()


def test_png_gives_the_exact_pixels_and_jpeg_nearly():
    picture = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    assert (to_rgb(compressed('.png', picture)) == [50, 100, 200]).all()
    jpeg = to_rgb(compressed('.jpg', picture)).astype(int)
    assert jpeg.shape == (16, 24, 3) and np.abs(jpeg - [50, 100, 200]).max() <= 3


@pytest.mark.parametrize('picture', [
    np.full((4, 6), 77, np.uint8), np.full((4, 6), 77 * 257, np.uint16),
    np.full((4, 6, 4), 77, np.uint8)])
def test_grey_deep_and_transparent_png_become_rgb(picture):
    assert (to_rgb(compressed('.png', picture)) == np.full((4, 6, 3), 77)).all()


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_every_truncation_of_compressed_data_is_refused(extension):
    picture = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    whole = compressed(extension, picture)
    to_rgb(whole)
    for length in range(len(whole.data)):
        with pytest.raises(ImageError):
            to_rgb(SimpleNamespace(format='jpeg', data=whole.data[:length]))


def test_zeros_behind_the_end_of_a_jpeg_are_tolerated():
    whole = compressed('.jpg', np.zeros((8, 8, 3), np.uint8))
    padded = SimpleNamespace(format='jpeg', data=bytes(whole.data) + bytes(100))
    assert (to_rgb(padded) == to_rgb(whole)).all()


def test_a_png_that_announces_an_absurd_size_is_refused_before_decoding():
    data = bytearray(compressed('.png', np.zeros((8, 8, 3), np.uint8)).data)
    data[16:24] = (60000).to_bytes(4, 'big') * 2
    with pytest.raises(ImageError, match='found width 60000, height 60000'):
        to_rgb(SimpleNamespace(format='png', data=bytes(data)))


def test_a_jpeg_with_too_little_data_for_its_size_is_refused_before_decoding():
    data = bytearray(compressed('.jpg', np.zeros((8, 8, 3), np.uint8)).data)
    size_at = data.index(b'\xff\xc0') + 5
    data[size_at:size_at + 4] = bytes.fromhex('10004000')
    with pytest.raises(ImageError, match='at least 131072 bytes .* width 16384, height 4096'):
        to_rgb(SimpleNamespace(format='jpeg', data=bytes(data)))


@pytest.mark.parametrize('progressive', [0, 1])
def test_a_jpeg_of_a_covered_lens_is_a_picture_however_small(progressive):
    _, data = cv2.imencode('.jpg', np.zeros((1080, 1920, 3), np.uint8), [
        cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    rgb = to_rgb(SimpleNamespace(format='jpeg', data=data.tobytes()))
    assert rgb.shape == (1080, 1920, 3) and not rgb.any()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'encoding': '32FC1'}, "expected an encoding of rgb8, .*, found '32FC1'"),
    ({'encoding': ''}, "found ''"),
    ({'width': 0}, 'found width 0, height 4'),
    ({'height': 0, 'data': b''}, 'found width 4, height 0'),
    ({'width': 65535, 'height': 65535}, 'found width 65535, height 65535'),
    ({'width': 16384, 'height': 16384}, 'at most 67108864 pixels'),
    ({'step': 11}, 'expected a step of at least 12 bytes for rgb8 of width 4, found 11'),
    ({'step': 13}, r'expected 52 bytes of data \(4 rows of 13\), found 48'),
    ({'data': b'\0' * 47}, 'expected 48 bytes .* found 47'),
    ({'data': b'\0' * 49}, 'expected 48 bytes .* found 49'),
    ({'data': [0] * 48}, 'expected image data in a contiguous buffer .* found list'),
    ({'encoding': 'bayer_rggb8', 'width': 2, 'step': 2, 'data': b'\0' * 8}, 'at least 3 pixels'),
    ({'encoding': 'yuyv', 'width': 3, 'step': 6, 'data': b'\0' * 24}, 'expected even sides'),
    ({'encoding': 'nv12', 'height': 3, 'step': 4, 'data': b'\0' * 18}, 'expected even sides'),
])
def test_malformed_images_are_refused_with_what_was_expected_and_found(changes, message):
    bad = image('rgb8', 4, 4, bytes(48))
    for name, value in changes.items():
        setattr(bad, name, value)
    with pytest.raises(ImageError, match=message) as caught:
        to_rgb(bad)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('image_format', 'data', 'message'), [
    ('16UC1; compressedDepth png', b'\0' * 20, 'found depth'),
    ('tiff', b'II*\0', 'expected JPEG or PNG data, found 4 bytes starting with 49492a00'),
    ('jpeg', b'', 'found 0 bytes starting with nothing'),
])
def test_compressed_data_of_another_kind_is_refused(image_format, data, message):
    with pytest.raises(ImageError, match=message):
        to_rgb(SimpleNamespace(format=image_format, data=data))


sides = st.one_of(st.integers(0, 12), st.sampled_from([65535, 16384, 2 ** 32 - 1]))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*ENCODINGS, '16UC1', 'RGB8']), sides, sides, st.integers(0, 60),
       st.integers(-5, 5), st.integers(0, 255))
def test_no_image_message_does_worse_than_an_image_error(encoding, height, width, step, more,
                                                          is_bigendian):
    count = int(min(height, 12) * ROWS.get(encoding, 1)) * step + more
    message = image(encoding, height, width, bytes(max(0, count)), step=step,
                    is_bigendian=is_bigendian)
    try:
        assert to_rgb(message).shape == (height, width, 3)
    except ImageError as error:
        assert '\n' not in str(error)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(['.jpg', '.png']), st.data())
def test_no_compressed_message_does_worse_than_an_image_error(extension, draw):
    picture = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    data = bytearray(compressed(extension, picture).data)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        rgb = to_rgb(SimpleNamespace(format='jpeg', data=bytes(data)))
        assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8
    except ImageError as error:
        assert '\n' not in str(error)


def camera(size=None, resize='area', crop_area=1.0):
    """Return a camera configuration."""
    return SimpleNamespace(size=size, resize=resize, crop_area=crop_area)


def test_prepare_with_nothing_to_do_returns_the_same_array():
    rgb = to_rgb(random_image('rgb8', 4, 4))
    assert prepare(rgb, camera()) is rgb
    assert prepare(rgb, camera(size=(4, 4))) is rgb


def test_prepare_crops_the_centre_by_share_of_the_area():
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[25:75, 50:150] = 9
    cropped = prepare(rgb, camera(crop_area=0.25))
    assert cropped.shape == (50, 100, 3) and (cropped == 9).all()
    assert prepare(rgb, camera(crop_area=0.9)).shape == (95, 190, 3)


def test_prepare_resizes_with_the_named_interpolation():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[::2, ::2] = 200
    assert (prepare(rgb, camera(size=(2, 2), resize='area')) == 50).all()
    large = {name: prepare(rgb, camera(size=(8, 6), resize=name)).tobytes()
             for name in ('area', 'bilinear', 'bicubic', 'lanczos')}
    assert prepare(rgb, camera(size=(8, 6))).shape == (8, 6, 3)
    assert len(set(large.values())) >= 3


@pytest.mark.parametrize(('rgb', 'settings_of_camera', 'message'), [
    (np.zeros((4, 4, 3)), {}, r'expected a uint8 image .* found float64 \(4, 4, 3\)'),
    (np.zeros((4, 4), np.uint8), {}, r'found uint8 \(4, 4\)'),
    (np.zeros((0, 4, 3), np.uint8), {}, r'found uint8 \(0, 4, 3\)'),
    ([[1, 2, 3]], {}, 'found list'),
    (np.zeros((4, 4, 3), np.uint8), {'crop_area': 0.0}, 'crop_area above 0 and at most 1'),
    (np.zeros((4, 4, 3), np.uint8), {'size': (2, 2), 'resize': 'cubic'}, "found 'cubic'"),
])
def test_prepare_refuses_what_is_not_an_image_or_not_a_preparation(
        rgb, settings_of_camera, message):
    with pytest.raises(ImageError, match=message):
        prepare(rgb, camera(**settings_of_camera))


def test_the_document_lists_exactly_the_supported_encodings():
    table = DOCUMENT.read_text().split('| `sensor_msgs/CompressedImage`')[0]
    cells = re.findall(r'^\| (`.+?) \|', table, re.MULTILINE)[1:]
    assert sorted(re.findall(r'`(\w+)`', ' '.join(cells))) == sorted(ENCODINGS)
