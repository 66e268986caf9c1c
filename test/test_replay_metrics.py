"""Metrics of replayed actions: literal values, and what must hold for any frames."""

from dataclasses import replace
import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import taken
from replay_frames import wandering

from vla_policy_node.evaluation.replay import metrics
from vla_policy_node.evaluation.replay.metrics import action_tallies
from vla_policy_node.evaluation.replay.metrics import select
from vla_policy_node.evaluation.replay.settings import MetricSettings

actions = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3), st.just(7)),
                 elements=st.floats(-1.0, 1.0))


def values(frames, name, **changes):
    """Return {group: value} of one metric."""
    tally = action_tallies(select(frames, frames.comparable()), MetricSettings(**changes))[name]
    return dict(zip(tally.names, tally.value().tolist(), strict=True))


def one(recorded, predicted, **changes):
    return replayed([recorded], [predicted], **changes)


def test_a_token_is_right_when_its_bin_is_the_recorded_one():
    frames = one([0.00, 0.00, 0.00, 0, 0, 0, 1], [0.00, 0.01, 0.05, 0, 0, 0, 1])
    assert values(frames, 'token_accuracy')['y'] == 0.0
    assert values(frames, 'token_accuracy')['translation'] == pytest.approx(1 / 3)
    assert values(frames, 'token_accuracy')['overall'] == pytest.approx(5 / 7)
    assert values(frames, 'within_1_bins')['overall'] == pytest.approx(6 / 7)
    assert values(frames, 'within_5_bins')['overall'] == 1.0


def test_errors_are_in_physical_units_and_metres_are_not_added_to_radians():
    frames = replayed([[0.0] * 7, [0.0] * 7], [[0.3, 0, 0, 0, 0, 0.5, 0], [-0.1] + [0] * 6])
    l1, rmse = values(frames, 'l1'), values(frames, 'rmse')
    assert l1['x'] == pytest.approx(0.2)
    assert rmse['x'] == pytest.approx(math.sqrt(0.05))
    assert l1['translation'] == pytest.approx(0.4 / 6)
    assert l1['rotation'] == pytest.approx(0.5 / 6)
    assert 'overall' not in l1 and 'overall' not in rmse


def test_normalised_errors_are_in_units_of_the_scale():
    frames = one([0.0] * 7, [0.1, 0, 0, 0.3, 0, 0, 0],
                 scale=np.array([0.1, 0.1, 0.1, 0.6, 0.6, 0.6, 1.0]))
    nrmse = values(frames, 'nrmse')
    assert nrmse['x'] == pytest.approx(1.0)
    assert nrmse['rx'] == pytest.approx(0.5)
    assert nrmse['overall'] == pytest.approx(math.sqrt(1.25 / 7))


def test_a_dimension_without_scale_has_no_normalised_error_and_does_not_spoil_the_others():
    frames = one([0.0] * 7, [0.5, 0.5] + [0.0] * 5, scale=np.array([0.0, 1, 1, 1, 1, 1, 1]))
    nrmse = values(frames, 'nrmse')
    assert math.isnan(nrmse['x'])
    assert nrmse['overall'] == pytest.approx(math.sqrt(0.25 / 6))


def test_directions_are_compared_only_where_both_vectors_are_long_enough():
    still, ahead, aside = [0.0] * 7, [0.1] + [0.0] * 6, [0.0, 0.2] + [0.0] * 5
    frames = replayed([ahead, ahead, ahead, still], [ahead, aside, [0.0005] + [0.0] * 6, ahead])
    tally = metrics.direction_cosine(select(frames, frames.comparable()), MetricSettings())
    assert tally.value()[0] == pytest.approx(0.5)
    assert tally.counts.tolist() == [2, 0]
    assert values(frames, 'direction_cosine', min_translation_m=1e-4)['translation'] == (
        pytest.approx(2 / 3))


def test_a_direction_with_one_number_missing_is_not_compared():
    frames = one([0.1, math.nan, 0, 0, 0, 0.1, 0], [0.1, 0.2, 0, 0, 0, 0.1, 0])
    cosine = values(frames, 'direction_cosine')
    assert math.isnan(cosine['translation'])
    assert cosine['rotation'] == pytest.approx(1.0)
    frames = one([0.1] * 7, [0.1] * 7)
    mask = frames.comparable()
    mask[..., 1] = False
    counts = metrics.direction_cosine(select(frames, mask), MetricSettings()).counts
    assert counts.tolist() == [0, 1]


def test_the_gripper_is_scored_for_both_sides():
    recorded = [0.0, 0.0, 0.0, 1.0, 1.0]
    predicted = [0.1, 0.49, 0.5, 0.9, 0.2]
    rows = [[[0.0] * 6 + [value] for value in side] for side in (recorded, predicted)]
    f1 = values(replayed(*rows), 'gripper_f1')
    # Closed: 2 found, 1 missed, 1 too many; open: 1 found, 1 too many, 1 missed.
    assert f1['closed'] == pytest.approx(4 / 6)
    assert f1['open'] == pytest.approx(2 / 4)


def test_a_gripper_that_is_always_open_has_no_score_for_closed():
    rows = [[0.0] * 6 + [1.0]] * 3
    f1 = values(replayed(rows, rows), 'gripper_f1')
    assert math.isnan(f1['closed']) and f1['open'] == 1.0


def test_failed_and_unusable_frames_are_left_out_and_not_counted_as_zero():
    good, nothing = [0.1] * 7, [math.nan] * 7
    frames = replayed([good, good, nothing], [[0.2] * 7, nothing, good])
    tallies = action_tallies(select(frames, frames.comparable()), MetricSettings())
    assert tallies['l1'].value()[0] == pytest.approx(0.1)
    assert tallies['l1'].counts[0] == 1
    assert tallies['token_accuracy'].counts.tolist()[-1] == 7
    assert tallies['gripper_f1'].counts.tolist() == [1, 1]


def test_a_policy_without_bins_has_errors_but_no_token_accuracy():
    frames = wandering()
    none = np.full_like(frames.predicted_bins, -1)
    frames = replace(frames, predicted_bins=none)
    assert math.isnan(values(frames, 'token_accuracy')['overall'])
    assert values(frames, 'nrmse')['overall'] > 0


def test_one_step_of_the_chunk_is_measured_alone():
    recorded = np.zeros((1, 3, 7))
    predicted = np.zeros((1, 3, 7))
    predicted[0, 2, 0] = 0.3
    frames = replayed(recorded, predicted)
    selection = select(frames, frames.comparable())
    assert [metrics.l1(selection.step(place)).value()[0] for place in range(3)] == (
        [0.0, 0.0, pytest.approx(0.3)])


@settings(max_examples=40, deadline=None)
@given(actions)
def test_a_perfect_prediction_is_perfect_in_every_metric(recorded):
    frames = replayed(recorded, recorded)
    for name in ('token_accuracy', 'within_1_bins', 'gripper_f1', 'direction_cosine'):
        found = [value for value in values(frames, name).values() if not math.isnan(value)]
        assert found == pytest.approx([1.0] * len(found))
    for name in ('l1', 'rmse', 'nrmse'):
        assert set(values(frames, name).values()) == {0.0}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(24)), st.integers(1, 3))
def test_the_order_of_the_frames_does_not_matter(order, horizon):
    frames = wandering(episodes=2, horizon=horizon)
    first, second = (action_tallies(select(part, part.comparable()), MetricSettings())
                     for part in (frames, taken(frames, list(order))))
    for name in first:
        assert second[name].value() == pytest.approx(first[name].value(), nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(actions, st.floats(-0.5, 0.5))
def test_no_mean_error_is_above_the_rms_error(recorded, offset):
    frames = replayed(recorded, np.roll(recorded, 1, axis=0) + offset)
    l1, rmse = values(frames, 'l1'), values(frames, 'rmse')
    assert all(l1[group] <= rmse[group] + 1e-12 for group in l1)


@settings(max_examples=25, deadline=None)
@given(actions, st.floats(0.1, 10.0))
def test_normalised_errors_do_not_depend_on_the_unit(recorded, factor):
    predicted = np.roll(recorded, 1, axis=-1)
    frames = [replayed(recorded * by, predicted * by, scale=np.full(7, by))
              for by in (1.0, factor)]
    assert values(frames[1], 'nrmse') == pytest.approx(values(frames[0], 'nrmse'))
