"""Malformed camera messages: all held by the worker, and missed where a conversion is broken."""

from faults_bench import of
from faults_bench import play
import numpy as np
import pytest

from faults.parts import images
from faults.worker_seat import Outcome
from vla_policy_node.images import ImageError
from vla_policy_node.images import to_rgb
from vla_policy_node.nodes import inference_worker
from vla_policy_node.nodes.inference_worker import Failure


@pytest.mark.slow
def test_every_malformed_message_is_refused_by_name_and_the_others_show_their_pixels():
    results = play('images')
    assert results.misses == []
    for name, least in (('images/raw', 1400), ('images/compressed', 600)):
        assert results[name]['injected'] >= least
        assert 0.2 < results[name]['rejections']['bad image'] / results[name]['injected'] < 0.9


def leaky(message):
    """Return whatever can be made of a message."""
    try:
        return to_rgb(message)
    except ImageError:
        return np.zeros((2, 2, 3), np.uint8)


def crashing(message):
    try:
        return to_rgb(message)
    except ImageError as error:
        raise IndexError('index 7 is out of bounds') from error


def swapped(message):
    return to_rgb(message)[..., ::-1]


def native_order(message):
    if hasattr(message, 'is_bigendian'):
        message.is_bigendian = 0
    return to_rgb(message)


@pytest.mark.parametrize(('convert', 'only', 'found'), [
    (leaky, 'images/raw', 'expected a refusal as bad image, found a chunk'),
    (leaky, 'images/compressed', 'expected a refusal as bad image, found a chunk'),
    (crashing, 'images/raw', 'expected a refusal as bad image, found fault: IndexError'),
    (crashing, 'images/compressed', 'expected a refusal as bad image, found fault: IndexError'),
    (swapped, 'images/raw', 'pixels are others'),
    (native_order, 'images/raw', 'pixels are others')])
def test_a_broken_conversion_is_found_out(monkeypatch, convert, only, found):
    monkeypatch.setattr(inference_worker, 'to_rgb', convert)
    results = play('images', only)
    assert results[only]['missed'] > 0
    assert any(found in miss for miss in results.misses)


def test_a_worker_that_publishes_for_a_refused_message_is_found_out():
    refused = Outcome(failure=Failure.BAD_IMAGE, reason='bad', published=1)
    assert 'a chunk was published' in images.refusal_fault(refused)


def test_a_worker_that_falls_silent_is_found_out():
    def silent(message):
        raise TimeoutError('no word of a frame')
    cases = images.cases_for(silent, short=True)
    results = play('images', 'images/raw', open_cases=of(cases))
    assert 'crash: TimeoutError' in results.misses[0]


def test_a_refusal_of_several_lines_is_found_out():
    refused = Outcome(failure=Failure.BAD_IMAGE, reason='bad\nimage')
    assert 'one line' in images.refusal_fault(refused)
