"""Two policies on the same frames, with paired intervals."""

from dataclasses import replace

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import taken
from replay_frames import wandering

from vla_policy_node.evaluation.replay.comparison import compare
from vla_policy_node.evaluation.replay.comparison import NO_BINS
from vla_policy_node.evaluation.replay.comparison import OTHER_BINS
from vla_policy_node.evaluation.replay.settings import MetricSettings

SETTINGS = MetricSettings(bootstrap_samples=400)


def test_a_policy_agrees_with_itself_and_differs_by_nothing():
    frames = wandering()
    found = compare(frames, frames, SETTINGS)
    assert found['token_agreement']['overall']['value'] == 1.0
    assert found['nrmse_between']['overall']['value'] == 0.0
    for entry in found['differences'].values():
        for group in entry.values():
            assert group['difference'] == 0.0 and group['interval_95'] == [0.0, 0.0]


def test_agreement_and_distance_need_no_recorded_action():
    recorded = [[0.0] * 7, [np.nan] * 7]
    first = replayed(recorded, [[0.0] * 7, [0.0] * 7])
    second = replayed(recorded, [[0.0] * 7, [0.1] + [0.0] * 6])
    found = compare(first, second, SETTINGS)
    assert found['token_agreement']['overall'] == {
        'value': pytest.approx(13 / 14), 'interval_95': None, 'count': 14}
    assert found['nrmse_between']['x']['value'] == pytest.approx(0.1 / 2 ** 0.5)


def test_differences_are_against_less_first_on_numbers_that_both_have():
    recorded = [[0.0] * 7] * 3
    first = replayed(recorded, [[0.1] * 7, [0.1] * 7, [np.nan] * 7])
    second = replayed(recorded, [[0.3] * 7, [np.nan] * 7, [0.9] * 7])
    entry = compare(first, second, SETTINGS)['differences']['l1']['x']
    assert entry == {'first': pytest.approx(0.1), 'against': pytest.approx(0.3),
                     'difference': pytest.approx(0.2), 'interval_95': None, 'count': 1}


def test_both_are_measured_by_the_scale_of_the_first():
    recorded, predicted = [[0.0] * 7], [[0.2] * 7]
    first = replayed(recorded, predicted, scale=np.full(7, 2.0))
    second = replayed(recorded, predicted, scale=np.full(7, 4.0))
    entry = compare(first, second, SETTINGS)['differences']['nrmse']['overall']
    assert entry['first'] == entry['against'] == pytest.approx(0.1)


def test_latency_is_compared_per_frame():
    first = wandering()
    second = replace(first, latency_ms=first.latency_ms + 25.0)
    entry = compare(first, second, SETTINGS)['differences']['latency_ms']['mean']
    assert entry['difference'] == pytest.approx(25.0)
    assert entry['interval_95'] == pytest.approx([25.0, 25.0])


def test_pairing_removes_what_both_share():
    # Episodes differ much from each other, the two policies only by a constant.
    recorded = np.zeros((40, 7))
    shared = np.repeat(np.arange(1.0, 9.0), 5)[:, None] * np.ones(7)
    episode = np.repeat(np.arange(8), 5)
    first = replayed(recorded, shared, episode=episode)
    second = replayed(recorded, shared + 0.1, episode=episode)
    low, high = compare(first, second, SETTINGS)['differences']['l1']['x']['interval_95']
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)


def test_only_common_frames_and_steps_are_compared():
    frames = wandering(horizon=3)
    first = taken(frames, np.arange(0, 30))
    second = wandering(horizon=3, seed=4)
    short = {name: getattr(second, name)[:, :2] for name in (
        'recorded', 'predicted', 'recorded_bins', 'predicted_bins', 'confidence')}
    second = taken(replace(second, **short), np.arange(35, 9, -1))
    found = compare(first, second, SETTINGS)
    assert found['frames'] == {'both': 20, 'only_first': 10, 'only_against': 6}
    assert found['horizon'] == 2
    assert found['same_recorded'] is True
    assert found['differences']['l1']['x']['count'] == 40


def test_bins_that_mean_other_actions_are_not_compared():
    first = wandering()
    second = replace(first, recorded_bins=first.recorded_bins + 1)
    found = compare(first, second, SETTINGS)
    assert found['token_agreement'] is None
    assert found['token_agreement_reason'] == OTHER_BINS
    assert found['nrmse_between']['overall']['value'] == 0.0


def test_no_common_frame_compares_nothing_and_does_not_fail():
    first = wandering()
    found = compare(first, replace(first, stamp_ns=first.stamp_ns + 1), SETTINGS)
    assert found['frames']['both'] == 0
    assert found['token_agreement_reason'] == NO_BINS
    assert found['differences']['nrmse']['overall']['count'] == 0


def test_different_recorded_actions_are_said():
    first = wandering()
    second = replace(first, recorded=first.recorded + 0.1)
    assert compare(first, second, SETTINGS)['same_recorded'] is False
