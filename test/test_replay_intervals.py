"""Bootstrap intervals over episodes."""

import numpy as np
import pytest
from replay_frames import taken
from replay_frames import wandering

from vla_policy_node.evaluation.replay.intervals import estimates
from vla_policy_node.evaluation.replay.intervals import interval
from vla_policy_node.evaluation.replay.intervals import ratio
from vla_policy_node.evaluation.replay.intervals import resample
from vla_policy_node.evaluation.replay.intervals import Tally
from vla_policy_node.evaluation.replay.metrics import nrmse
from vla_policy_node.evaluation.replay.metrics import select


def means(per_episode):
    """Return the tally of a mean with one number per episode."""
    sums = np.array([[[value, 1.0]] for value in per_episode])
    return Tally(names=('mean',), sums=sums, finish=ratio, counts=np.array([len(per_episode)]))


def test_a_resample_draws_as_many_episodes_as_there_are():
    weights = resample(5, samples=300, seed=1)
    assert weights.shape == (300, 5)
    assert (weights.sum(axis=1) == 5).all()
    assert weights.mean() == 1.0 and weights.max() > 1


@pytest.mark.parametrize('episodes', [0, 1])
def test_fewer_than_two_episodes_have_no_interval(episodes):
    assert resample(episodes, samples=10, seed=0) is None
    entry = estimates(means([0.5]), None)['mean']
    assert entry == {'value': 0.5, 'interval_95': None, 'count': 1}


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    drawn = np.random.default_rng(3).normal(10.0, 2.0, 400)
    low, high = estimates(means(drawn), resample(400, samples=4000, seed=0))['mean']['interval_95']
    half = 1.96 * drawn.std() / 20
    assert low == pytest.approx(drawn.mean() - half, abs=0.02)
    assert high == pytest.approx(drawn.mean() + half, abs=0.02)


def test_episodes_that_do_not_differ_have_an_empty_interval():
    entry = estimates(means([0.25, 0.25, 0.25]), resample(3, samples=100, seed=0))['mean']
    assert entry['interval_95'] == [0.25, 0.25]


def test_more_frames_of_the_same_episodes_promise_nothing_more():
    frames = wandering(episodes=4)
    twice = taken(frames, np.tile(np.arange(frames.frames), 2))
    weights = resample(4, samples=500, seed=0)
    first, second = (estimates(nrmse(select(part, part.comparable())), weights)['overall']
                     for part in (frames, twice))
    assert second['interval_95'] == pytest.approx(first['interval_95'])
    assert second['count'] == 2 * first['count']


def test_the_same_seed_gives_the_same_interval():
    weights = [resample(4, samples=50, seed=seed) for seed in (7, 7, 8)]
    assert (weights[0] == weights[1]).all() and (weights[0] != weights[2]).any()


def test_resamples_without_a_value_are_left_out():
    values = np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]])
    low, high = interval(values)
    assert low[0] == pytest.approx(1.05) and high[0] == pytest.approx(2.95)
    assert np.isnan(low[1]) and np.isnan(high[1])
