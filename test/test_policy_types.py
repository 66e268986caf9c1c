"""Observation, the fake policy, and what importing the package costs."""

import subprocess
import sys

import numpy as np
from policy_contract import FakePolicy
from policy_contract import PolicyContract
import pytest

from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import Observation
from vla_policy_node.policy import PolicyError

RGB = np.zeros((2, 3, 3), np.uint8)


class TestFakePolicy(PolicyContract):

    @pytest.fixture
    def policy(self):
        return FakePolicy()

    def make_policy(self):
        return FakePolicy()


@pytest.mark.parametrize('image, found', [
    (np.zeros((2, 3), np.uint8), r'\(2, 3\)'),
    (np.zeros((2, 3, 4), np.uint8), r'\(2, 3, 4\)'),
    (np.zeros((2, 3, 3), np.float32), 'float32'),
    (np.zeros((0, 3, 3), np.uint8), r'\(0, 3, 3\)'),
    ([[0]], 'list'),
])
def test_an_image_that_is_not_rgb_bytes_is_refused_by_name(image, found):
    with pytest.raises(PolicyError, match=f"'wrist'.*{found}"):
        Observation(images={'primary': RGB, 'wrist': image}, instruction='pick')


def test_an_observation_without_images_is_refused():
    with pytest.raises(PolicyError, match='at least one image'):
        Observation(images={}, instruction='pick')


def test_an_instruction_that_is_no_text_is_refused():
    with pytest.raises(PolicyError, match='NoneType'):
        Observation(images={'primary': RGB}, instruction=None)


def test_policy_errors_are_value_errors():
    assert issubclass(DecodeError, PolicyError) and issubclass(PolicyError, ValueError)


def test_importing_the_policy_package_does_not_import_torch():
    code = 'import sys, vla_policy_node.policy; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
