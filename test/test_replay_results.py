"""Replayed frames fit together, or one line says which part does not."""

from dataclasses import replace

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import wandering

from vla_policy_node.evaluation.replay.results import ReplayedError


@pytest.mark.parametrize(('name', 'value', 'found'), [
    ('predicted', np.zeros((36, 2, 7)), r'predicted: expected shape \(36, 1, 7\).*\(36, 2, 7\)'),
    ('recorded', np.zeros((36, 7)), r'recorded: expected shape \(N, K, 7\).*\(36, 7\)'),
    ('previous', np.zeros((35, 7)), r'previous: expected shape \(36, 7\)'),
    ('stamp_ns', np.zeros(35, np.int64), r'stamp_ns: expected shape \(36,\)'),
    ('scale', np.zeros(6), r'scale: expected shape \(7,\)'),
    ('timing_ms', {'decode': np.zeros(3)}, r"timing_ms\['decode'\]: expected shape \(36,\)"),
    ('predicted_bins', np.full((36, 1, 7), 256), r'predicted_bins: .*0\.\.255.*256\.\.256'),
    ('recorded_bins', np.full((36, 1, 7), -2), r'recorded_bins: .*-2\.\.-2'),
])
def test_a_part_of_the_wrong_form_is_named(name, value, found):
    with pytest.raises(ReplayedError, match=found):
        replace(wandering(), **{name: value})


def test_numbers_are_comparable_where_both_sides_have_one():
    recorded = np.zeros((3, 7))
    predicted = np.zeros((3, 7))
    recorded[1, 6] = np.nan
    predicted[2] = np.nan
    mask = replayed(recorded, predicted).comparable()[:, 0]
    assert mask[0].all()
    assert mask[1].tolist() == [True] * 6 + [False]
    assert not mask[2].any()
