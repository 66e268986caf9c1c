"""The three ways to bring a picture to the towers' size; pixels as published."""

import json

import numpy as np
from PIL import Image
import pytest
import torch

from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.openvla.pictures import OpenVLAImageProcessor

HALF = [0.5, 0.5, 0.5]


def processor(strategy, side=8, **changes):
    return OpenVLAImageProcessor({
        'image_resize_strategy': strategy, 'input_sizes': [[3, side, side]],
        'interpolations': ['bicubic'], 'means': [HALF], 'stds': [HALF], **changes})


def pixels(strategy, image, **changes):
    return processor(strategy, **changes)([image])['pixel_values'][0]


def striped():
    """Return a picture of 8 x 16 pixels, each column as bright as its number."""
    return np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)


def test_two_towers_get_six_channels_each_with_its_own_normalisation():
    found = pixels(
        'resize-naive', np.full((4, 4, 3), 255, np.uint8), input_sizes=[[3, 8, 8]] * 2,
        interpolations=['bicubic'] * 2, means=[HALF, [0.0, 0.5, 1.0]], stds=[HALF, [1.0] * 3])
    assert found.shape == (6, 8, 8) and found.dtype == torch.float32
    assert found[:, 0, 0].tolist() == [1.0, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_naive_resizing_squeezes_the_whole_picture():
    wanted = np.asarray(Image.fromarray(striped()).resize((8, 8), Image.Resampling.BICUBIC))
    found = (pixels('resize-naive', striped())[0] * 0.5 + 0.5) * 255
    np.testing.assert_allclose(found, wanted[..., 0], atol=1e-4)


def test_cropping_keeps_the_centre_at_its_own_scale():
    found = (pixels('resize-crop', striped())[0] * 0.5 + 0.5) * 255
    np.testing.assert_allclose(found[0], np.arange(4, 12), atol=1e-4)


def test_letterboxing_fills_with_the_last_towers_mean():
    found = pixels('letterbox', np.full((8, 16, 3), 255, np.uint8), side=16)
    assert found[0, 8].tolist() == [1.0] * 16
    assert found[:, 0, 0].tolist() == pytest.approx([127 / 127.5 - 1] * 3)


def test_letterboxing_an_odd_difference_cuts_one_pixel_off():
    assert pixels('letterbox', np.zeros((5, 8, 3), np.uint8)).shape == (3, 8, 8)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(PolicyError, match="resize-naive, letterbox, resize-crop, found 'stretch'"):
        processor('stretch')


def test_too_few_means_are_refused():
    with pytest.raises(PolicyError, match='one entry per vision tower'):
        processor('resize-naive', means=[HALF, HALF])


def test_well_known_towers_have_well_known_pixels():
    found = OpenVLAImageProcessor.from_model_config(
        {'vision_backbone_id': 'dinosiglip-vit-so-224px',
         'image_resize_strategy': 'resize-naive'}).settings
    assert found['means'] == [[0.485, 0.456, 0.406], HALF]
    assert found['input_sizes'] == [[3, 224, 224]] * 2


def test_what_is_saved_is_what_was_read(tmp_path):
    first = processor('letterbox', more='kept')
    first.save_pretrained(tmp_path)
    content = json.loads((tmp_path / 'preprocessor_config.json').read_text())
    assert content == first.settings and content['more'] == 'kept'
