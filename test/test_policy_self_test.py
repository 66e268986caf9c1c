"""A model that ignores its images, or yields no finite action, does not pass the self-test."""

import dataclasses

import numpy as np
from policy_contract import FakePolicy
import pytest

from vla_policy_node.policy import DecodeError
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy import run_self_test


class Blind(FakePolicy):

    def action_logits(self, observation):
        return np.array([0.5, 1.5], np.float32)


class BrokenWeights(FakePolicy):

    def action_logits(self, observation):
        return super().action_logits(observation) * np.float32('nan')


class BrokenAction(FakePolicy):

    def infer(self, observation):
        chunk = super().infer(observation)
        return dataclasses.replace(chunk, actions=np.full((1, 7), np.nan))


def test_a_policy_that_sees_passes_and_its_action_comes_back():
    assert run_self_test(FakePolicy()).actions.shape == (1, 7)


def test_an_image_that_is_silently_ignored_is_named_as_such():
    with pytest.raises(PolicyError, match='silently ignored'):
        run_self_test(Blind())


def test_logits_that_are_not_finite_fail():
    with pytest.raises(DecodeError, match='finite logits'):
        run_self_test(BrokenWeights())


def test_an_action_that_is_not_finite_fails():
    with pytest.raises(DecodeError, match='finite action'):
        run_self_test(BrokenAction())
