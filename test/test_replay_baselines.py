"""The baselines: what would have been answered without looking."""

from dataclasses import replace
import math

import numpy as np
from replay_frames import replayed
from replay_frames import to_bins
from replay_frames import wandering

from vla_policy_node.evaluation.replay.baselines import baselines


def test_zero_action_keeps_the_gripper_and_previous_action_repeats_all():
    frames = replayed([[0.1] * 6 + [0.0], [0.2] * 6 + [1.0]], [[0.5] * 7] * 2)
    found = baselines(frames, None)
    assert found['zero_action'].predicted[1, 0].tolist() == [0.0] * 6 + [0.0]
    assert found['previous_action'].predicted[1, 0].tolist() == [0.1] * 6 + [0.0]
    assert found['dataset_mean'].predicted[1, 0].tolist() == [0.0] * 7


def test_at_the_start_of_an_episode_nothing_came_before():
    found = baselines(replayed([[0.1] * 7] * 2, [[0.5] * 7] * 2, episode=[0, 1]), None)
    assert np.isnan(found['previous_action'].predicted).all()
    still = found['zero_action'].predicted[1, 0]
    assert still[:6].tolist() == [0.0] * 6 and math.isnan(still[6])


def test_a_baseline_is_held_through_the_chunk():
    found = baselines(wandering(horizon=3), None)['previous_action']
    assert (found.predicted[1, 0] == found.predicted[1, 2]).all()


def test_a_baseline_answers_only_where_the_policy_does():
    frames = replayed([[0.1] * 7] * 2, [[0.5] * 7, [math.nan] * 7])
    mean = baselines(frames, to_bins)['dataset_mean']
    assert np.isfinite(mean.predicted[0]).all() and np.isnan(mean.predicted[1]).all()
    assert (mean.predicted_bins[1] == -1).all()


def test_baselines_are_encoded_as_the_checkpoint_encodes():
    frames = replace(wandering(), mean_action=np.full(7, 0.25))
    found = baselines(frames, to_bins)
    assert (found['dataset_mean'].predicted_bins == 152).all()
    assert (found['zero_action'].predicted_bins[..., :6] == 127).all()
    first = np.isnan(frames.previous).any(axis=1)
    assert (found['previous_action'].predicted_bins[first] == -1).all()
    assert (baselines(frames, None)['dataset_mean'].predicted_bins == -1).all()


def test_the_encoder_is_given_finite_actions_only():
    def strict(actions):
        assert np.isfinite(actions).all()
        return to_bins(actions)

    frames = wandering()
    frames = replace(frames, previous=np.full_like(frames.previous, np.nan))
    assert (baselines(frames, strict)['previous_action'].predicted_bins == -1).all()
