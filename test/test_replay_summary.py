"""summary.json of a replay: plain values, everything that was measured, None where nothing was."""

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import taken
from replay_frames import to_bins
from replay_frames import wandering

from vla_policy_node.evaluation.replay.settings import MetricSettings
from vla_policy_node.evaluation.replay.summary import NOTHING
from vla_policy_node.evaluation.replay.summary import ONE_EPISODE
from vla_policy_node.evaluation.replay.summary import plain
from vla_policy_node.evaluation.replay.summary import spread
from vla_policy_node.evaluation.replay.summary import summarise

SETTINGS = MetricSettings(bootstrap_samples=200)


def summary_of(frames, **changes):
    given = {'against': None, 'skipped': {}, 'meta': {}, 'to_bins': to_bins, 'settings': SETTINGS}
    summary = summarise(frames, **{**given, **changes})
    json.dumps(summary, allow_nan=False)
    return summary


def test_everything_that_was_asked_for_is_in_the_summary():
    summary = summary_of(wandering(horizon=3), against=wandering(horizon=3, seed=1),
                         skipped={'no image': 4}, meta={'checkpoint': Path('models/tabletop')})
    assert list(summary['metrics']) == [
        'policy', 'zero_action', 'previous_action', 'dataset_mean']
    for entry in summary['metrics'].values():
        assert set(entry) == {
            'name', 'token_accuracy', 'within_1_bins', 'within_5_bins', 'l1', 'rmse', 'nrmse',
            'direction_cosine', 'gripper_f1', 'gripper_events'}
        low, high = entry['nrmse']['overall']['interval_95']
        assert low <= entry['nrmse']['overall']['value'] <= high
    assert set(summary['calibration']) == {
        f'{name}{end}' for name in ('error', 'reliability')
        for end in ('', '_within_1_bins', '_within_5_bins')}
    assert [len(summary['horizon_curve']['nrmse'][key]) for key in summary['metrics']] == [3] * 4
    assert summary['skipped'] == {'no image': 4}
    assert summary['meta'] == {'checkpoint': 'models/tabletop'}
    assert summary['interval'] == {'level': 0.95, 'samples': 200, 'seed': 0, 'episodes': 3,
                                   'reason': None}
    assert summary['against']['differences']['nrmse']['overall']['interval_95'] is not None


def test_the_same_frames_give_the_same_summary():
    assert summary_of(wandering(horizon=2)) == summary_of(wandering(horizon=2))
    other = summary_of(wandering(horizon=2), settings=replace(SETTINGS, seed=1))
    assert other['metrics'] != summary_of(wandering(horizon=2))['metrics']


def test_other_distances_in_bins_have_keys_of_their_own():
    summary = summary_of(wandering(), settings=replace(SETTINGS, within_bins=(3,)))
    assert 'within_3_bins' in summary['metrics']['policy']
    assert 'within_1_bins' not in summary['metrics']['policy']
    assert 'error_within_3_bins' in summary['calibration']


def test_one_episode_has_values_without_intervals_and_a_reason():
    summary = summary_of(wandering(episodes=1))
    assert summary['interval']['reason'] == ONE_EPISODE
    entry = summary['metrics']['policy']['nrmse']['overall']
    assert entry['value'] > 0 and entry['interval_95'] is None


def test_a_second_episode_without_anything_to_compare_gives_no_interval():
    frames = wandering(episodes=2)
    predicted = frames.predicted.copy()
    predicted[frames.episode == 1] = np.nan
    summary = summary_of(replace(frames, predicted=predicted))
    assert summary['interval']['episodes'] == 1
    assert summary['interval']['reason'] == ONE_EPISODE


@pytest.mark.parametrize('frames', [
    taken(wandering(), []),
    replayed([[np.nan] * 7] * 3, [[0.0] * 7] * 3),
    replayed([[0.0] * 7] * 3, [[np.nan] * 7] * 3),
], ids=['no frame', 'no recorded action', 'no prediction'])
def test_nothing_to_evaluate_is_said(frames):
    summary = summary_of(frames, against=frames)
    assert summary['evaluable'] is False and summary['reason'] == NOTHING
    assert summary['interval']['reason'] == NOTHING
    assert summary['metrics']['policy']['token_accuracy']['overall'] == {
        'value': None, 'interval_95': None, 'count': 0}


def test_failed_decodes_and_unusable_recordings_are_counted():
    recorded = np.zeros((5, 2, 7))
    predicted = np.zeros((5, 2, 7))
    predicted[:2] = np.nan
    recorded[4, 0] = np.nan
    recorded[3, 1] = np.nan
    summary = summary_of(replayed(recorded, predicted))
    assert summary['frames'] == {'replayed': 5, 'compared': 3, 'decoding_failed': 2,
                                 'recording_unusable': 1}
    assert summary['numbers'] == {'all': 70, 'compared': 28}


def test_latency_has_percentiles_and_a_rate():
    frames = replayed([[0.0] * 7] * 4, [[0.0] * 7] * 4,
                      latency_ms=np.array([100.0, 200.0, 300.0, np.nan]))
    summary = summary_of(frames)
    assert summary['latency_ms'] == {
        'p50': 200.0, 'p95': pytest.approx(290.0), 'p99': pytest.approx(298.0), 'mean': 200.0,
        'count': 3}
    assert summary['rate_hz'] == 5.0


def test_without_measured_latency_there_is_no_rate():
    frames = wandering()
    summary = summary_of(replace(frames, latency_ms=np.full(frames.frames, np.nan)))
    assert summary['rate_hz'] is None and summary['latency_ms']['p50'] is None


def test_live_data_are_kept_and_arrays_become_percentiles():
    live = {'rate_hz': 4.9, 'dropped': 3, 'frame_age_ms': np.array([10.0, 20.0, 30.0])}
    summary = summary_of(replace(wandering(), live=live))
    assert summary['live']['rate_hz'] == 4.9 and summary['live']['dropped'] == 3
    assert summary['live']['frame_age_ms']['p50'] == 20.0


def test_the_previous_action_is_always_one_period_late():
    rows = [[0.1] * 6 + [float(value)] for value in (1, 1, 1, 0, 0, 0, 1, 1)]
    events = summary_of(replayed(rows, rows))['metrics']['previous_action']['gripper_events']
    assert (events['recorded'], events['missed'], events['extra']) == (2, 0, 0)
    assert events['signed_s']['value'] == pytest.approx(0.2)
    assert events['median_absolute_s'] == pytest.approx(0.2)


def test_without_an_encoder_baselines_have_errors_but_no_tokens():
    summary = summary_of(wandering(), to_bins=None)
    mean = summary['metrics']['dataset_mean']
    assert mean['token_accuracy']['overall']['value'] is None
    assert mean['nrmse']['overall']['value'] > 0


def test_every_episode_has_its_own_numbers():
    frames = wandering(episodes=2, error=0.0)
    episodes = summary_of(frames)['episodes']
    assert [(entry['number'], entry['frames'], entry['compared']) for entry in episodes] == (
        [(0, 12, 12), (1, 12, 12)])
    whole = summary_of(frames)['metrics']['policy']['token_accuracy']['overall']['value']
    assert np.mean([entry['token_accuracy'] for entry in episodes]) == pytest.approx(whole)


def test_plain_values_have_no_numpy_and_no_nan():
    found = plain({'a': np.float32(0.5), 1: (np.int64(2), float('nan')),
                   'b': np.array([1.0, np.inf]), 'c': np.bool_(True), 'd': Path('x')})
    assert found == {'a': 0.5, '1': [2, None], 'b': [1.0, None], 'c': True, 'd': 'x'}
    assert type(found['c']) is bool


def test_a_spread_leaves_out_what_is_not_finite():
    assert spread(np.array([1.0, np.nan, 3.0])) == {
        'p50': 2.0, 'p95': pytest.approx(2.9), 'p99': pytest.approx(2.98), 'mean': 2.0, 'count': 2}
