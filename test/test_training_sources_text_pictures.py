"""Picture files become RGB arrays, or a reason why not."""

import io

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from vla_policy_node.training.sources.pictures import decode_picture
from vla_policy_node.training.sources.pictures import read_picture
from vla_policy_node.training.sources.records import RecordError


def encoded(image: Image.Image, form: str, **options) -> bytes:
    """Return the file of a picture."""
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


COLOURS = Image.fromarray(
    np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [9, 9, 9]]], np.uint8).repeat(
        8, axis=0).repeat(8, axis=1))


@pytest.mark.parametrize(('mode', 'form'), [
    ('RGB', 'png'), ('RGB', 'bmp'), ('RGB', 'tiff'), ('RGBA', 'png'), ('P', 'gif'), ('P', 'png'),
    ('RGB', 'jpeg'), ('CMYK', 'jpeg'), ('RGB', 'webp'),
])
def test_pictures_of_any_kind_become_rgb(mode, form):
    rgb = decode_picture(encoded(COLOURS.convert(mode), form), 'x')
    assert rgb.shape == (16, 16, 3) and rgb.dtype == np.uint8
    assert rgb[2, 2].argmax() == 0 and rgb[2, 13].argmax() == 1 and rgb[13, 2].argmax() == 2


@pytest.mark.parametrize(('array', 'level'), [
    (np.full((4, 6), 200, np.uint8), 200), (np.full((4, 6), 200 * 256, np.uint16), 200),
    (np.full((4, 6), True), 255),
])
def test_grey_pictures_of_1_8_and_16_bits_keep_their_brightness(array, level):
    rgb = decode_picture(encoded(Image.fromarray(array), 'png'), 'x')
    assert rgb.shape == (4, 6, 3) and (rgb == level).all()


def test_a_picture_is_turned_as_its_exif_orientation_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new('RGB', (8, 4), (0, 0, 200))
    assert decode_picture(encoded(lying, 'jpeg', exif=exif), 'x').shape == (8, 4, 3)


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')
@settings(deadline=None, max_examples=150)
@given(st.sampled_from(['png', 'jpeg', 'gif', 'webp', 'bmp', 'tiff']),
       st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=40))
def test_damaged_data_is_a_picture_or_a_record_error(form, cut, place, noise):
    data = bytearray(encoded(COLOURS, form))
    place %= len(data)
    data[place:place + len(noise)] = noise
    del data[len(data) - cut % len(data):]
    try:
        assert decode_picture(bytes(data), 'chat, line 3').dtype == np.uint8
    except RecordError as error:
        assert str(error).startswith('chat, line 3: ') and '\n' not in str(error)


def test_a_truncated_picture_is_refused_and_not_filled_up_with_grey():
    data = encoded(Image.effect_noise((64, 64), 80).convert('RGB'), 'jpeg')
    with pytest.raises(RecordError, match='truncated'):
        decode_picture(data[:len(data) // 2], 'x')


def test_a_missing_file_is_named_with_the_record(tmp_path):
    with pytest.raises(RecordError, match='chat, line 3: expected a picture at .*none.png'):
        read_picture(tmp_path / 'none.png', 'chat, line 3')
    with pytest.raises(RecordError, match='directory'):
        read_picture(tmp_path, 'chat, line 3')
