"""Pictures become what the RLDS loaders of OpenVLA make of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from pydantic import ValidationError
import pytest

from vla_policy_node.images import ImageError
from vla_policy_node.images import prepare
from vla_policy_node.rlds_resizing import resize
from vla_policy_node.rlds_resizing import zoom
from vla_policy_node.vla_config import CameraConfig


def blocks(height: int, width: int) -> np.ndarray:
    """Return a picture of blocks in which no filter leaves the range of 8 bits."""
    colours = np.random.default_rng(3).integers(60, 190, (height // 40, width // 40, 3))
    return np.kron(colours, np.ones((40, 40, 1))).astype(np.uint8)


@pytest.mark.parametrize('size', [(224, 224), (600, 700)])
def test_the_filter_is_the_anti_aliased_lanczos_one(size):
    picture = blocks(480, 640)
    pillow = np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS))
    difference = np.abs(resize(picture, size).astype(int) - pillow)
    # Pillow rounds once more, between rows and columns.
    assert difference.max() == 1
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize(('name', 'size'), [('shrunk', (28, 28)), ('enlarged', (60, 72))])
def test_pixels_are_those_of_tensorflow(name, size):
    # tf.image.resize (lanczos3, antialias), rounded; tf.image.crop_and_resize of a box with sides
    # of sqrt(0.9), TensorFlow 2.21. At times its sums fall on the other side of a half.
    reference = np.load(Path(__file__).with_name('data') / 'rlds_reference.npz')
    for expected, area in ((reference[name], 1.0), (reference[f'{name}_crop'], 0.9)):
        camera = CameraConfig(size=size, resize='rlds', crop_area=area)
        difference = np.abs(prepare(reference['picture'], camera).astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001


def test_what_overshoots_is_clipped_and_a_plain_picture_stays_plain():
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    assert set(np.unique(resize(edge, (64, 32)))) >= {0, 255}
    plain = np.full((48, 64, 3), 77, np.uint8)
    assert (resize(plain, (30, 20)) == 77).all()
    assert (zoom(plain, (0.1, 0.2, 0.5, 0.5)) == 77).all()


def test_a_picture_of_the_right_size_is_left_alone():
    picture = blocks(80, 80)
    assert resize(picture, (80, 80)) is picture
    assert (zoom(picture, (0.0, 0.0, 1.0, 1.0)) == picture).all()


def test_a_box_is_enlarged_from_the_centres_of_its_outermost_pixels():
    picture = np.repeat(np.array([0, 50, 100, 150, 200], np.uint8), 3).reshape(1, 5, 3)
    picture = np.repeat(picture, 5, axis=0)
    assert zoom(picture, (0.0, 0.25, 1.0, 0.5))[0, :, 0].tolist() == [50, 75, 100, 125, 150]
    assert zoom(picture.transpose(1, 0, 2), (0.0, 0.0, 0.5, 1.0))[:, 0, 0].tolist() == [
        0, 25, 50, 75, 100]


def test_a_camera_of_that_kind_resizes_first_and_crops_by_share_afterwards():
    picture = blocks(480, 640)
    camera = CameraConfig(size=(224, 224), resize='rlds', crop_area=0.81)
    small = resize(picture, (224, 224))
    assert (prepare(picture, camera) == zoom(small, (0.05, 0.05, 0.9, 0.9))).all()
    whole = CameraConfig(size=(224, 224), resize='rlds')
    assert (prepare(picture, whole) == small).all()


def test_training_chooses_another_box_of_the_same_share():
    picture = blocks(480, 640)
    camera = CameraConfig(size=(224, 224), resize='rlds', crop_area=0.25)
    expected = zoom(resize(picture, (224, 224)), (0.25, 0.5, 0.5, 0.5))
    assert (prepare(picture, camera, box=(120, 320, 240, 320)) == expected).all()
    with pytest.raises(ImageError, match='a crop inside the 480 x 640 image'):
        prepare(picture, camera, box=(400, 0, 240, 320))


def test_it_needs_a_size():
    with pytest.raises(ValidationError, match=r"'rlds' needs a size, such as \[224, 224\]"):
        CameraConfig(resize='rlds')
    with pytest.raises(ImageError, match='expected a uint8 image'):
        prepare(np.zeros((4, 4)), SimpleNamespace(resize='rlds', size=(2, 2), crop_area=1.0))
