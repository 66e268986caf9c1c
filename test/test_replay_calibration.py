"""Whether confidence is the share of right tokens."""

from dataclasses import replace
import math

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import wandering

from vla_policy_node.evaluation.replay.calibration import calibration_tally
from vla_policy_node.evaluation.replay.calibration import reliability
from vla_policy_node.evaluation.replay.metrics import select


def tally_of(frames, distance=0, bins=10):
    return calibration_tally(select(frames, frames.comparable()), distance, bins)


def overall(frames, **options):
    tally = tally_of(frames, **options)
    return tally.value()[tally.names.index('overall')]


def frames_with(confidence, right):
    """Return one token of dimension x per entry, the other six failed."""
    nothing = [math.nan] * 6
    recorded = [[0.0, *nothing]] * len(right)
    predicted = [[0.0 if good else 0.5, *nothing] for good in right]
    values = np.full((len(right), 1, 7), np.nan, np.float32)
    values[:, 0, 0] = confidence
    return replayed(recorded, predicted, confidence=values)


def test_the_error_is_the_weighted_distance_of_confidence_and_share_of_right_tokens():
    # Upper half: mean confidence 2.8 / 3, two of three right. Lower half: 0.3, none right.
    frames = frames_with([0.9, 0.9, 0.3, 1.0], [True, False, False, True])
    assert overall(frames, bins=2) == pytest.approx(3 / 4 * (2.8 / 3 - 2 / 3) + 1 / 4 * 0.3)


def test_too_much_and_too_little_confidence_do_not_cancel():
    assert overall(frames_with([0.9, 0.3], [False, True])) == pytest.approx((0.9 + 0.7) / 2)


def test_a_policy_that_is_sure_and_right_has_no_error_and_sure_and_wrong_has_all():
    assert overall(frames_with([1.0, 1.0], [True, True])) == 0.0
    assert overall(frames_with([1.0, 1.0], [False, False])) == 1.0


def test_a_calibrated_predictor_has_nearly_no_error():
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.0, 1.0, 40_000)
    frames = frames_with(confidence, rng.random(40_000) < confidence)
    assert overall(frames) < 0.01
    assert overall(frames_with(confidence, rng.random(40_000) < confidence / 2)) == (
        pytest.approx(0.25, abs=0.01))


def test_nearly_right_counts_where_asked_for():
    frames = replayed([[0.0] * 7], [[0.01] * 7])
    assert overall(frames) == 1.0
    assert overall(frames, distance=1) == 0.0


def test_without_confidence_there_is_no_error():
    frames = wandering()
    frames = replace(frames, confidence=np.full_like(frames.confidence, np.nan))
    assert math.isnan(overall(frames))
    assert tally_of(frames).counts.sum() == 0


def test_the_reliability_diagram_has_every_part_and_says_where_it_is_empty():
    parts = reliability(tally_of(frames_with([0.9, 0.8, 0.1], [True, False, False]), bins=2),
                        'overall', 2)
    assert parts[0] == {'low': 0.0, 'high': 0.5, 'count': 1,
                        'confidence': pytest.approx(0.1), 'right': 0.0}
    assert parts[1]['count'] == 2 and parts[1]['right'] == 0.5
    assert parts[1]['confidence'] == pytest.approx(0.85)
    empty = reliability(tally_of(frames_with([0.9], [True]), bins=2), 'overall', 2)[0]
    assert empty['count'] == 0 and empty['right'] is None and empty['confidence'] is None
