"""Cameras and clocks that misbehave: held, and missed where stamps or clocks are not looked at."""

from functools import partial

from faults_bench import play
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from faults.parts import cameras  # noqa: E402
from faults.parts import clocks  # noqa: E402

pytestmark = pytest.mark.integration


def test_the_arm_holds_or_goes_on_safely_whatever_a_camera_does():
    results = play('cameras')
    assert results.misses == []
    for name in ('past', 'future'):
        assert results[f'cameras/{name}']['rejections'] == {'stale_image': 1}
    assert results['cameras/reordered']['rejections'] == {'out_of_order': 1}


def test_nothing_moves_by_a_clock_that_jumps_or_stands_still():
    results = play('clocks')
    assert results.misses == []
    assert sum(result['injected'] for result in results.values()) == 3


def test_nodes_that_trust_old_frames_are_found_out():
    trusting = partial(
        cameras.cases, policy={'image_timeout_s': 10.0}, command_timeout_s=5.0)
    results = play('cameras', 'cameras/past', open_cases=trusting)
    assert results['cameras/past']['missed'] == 1
    assert 'expected the policy node to name stale images' in results.misses[0]


def test_a_controller_that_does_not_watch_the_clock_is_found_out():
    trusting = partial(
        clocks.cases, clock_timeout_s=5.0, command_timeout_s=5.0, overrun_s=1.0)
    results = play('clocks', 'clocks/paused', open_cases=trusting)
    assert results['clocks/paused']['missed'] == 1
    assert 'ms after the clock stood still' in results.misses[0]
