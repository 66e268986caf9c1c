"""The gripper's events: when it opens and closes, and which belong together."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import taken

from vla_policy_node.evaluation.replay.events import gripper_events
from vla_policy_node.evaluation.replay.events import match

SECOND = 1_000_000_000


def events(recorded, predicted, window_s=1.0, **changes):
    """Return the events of one episode of gripper values, 0.2 s apart."""
    rows = [[[0.0] * 6 + [float(value)] for value in side] for side in (recorded, predicted)]
    frames = replayed(*rows, **changes)
    return gripper_events(frames, frames.comparable(), window_s, np.unique(frames.episode))


def test_a_late_closing_has_a_positive_error():
    found, = events([1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0])
    assert (found.recorded, found.predicted) == (1, 1)
    assert found.errors_s.tolist() == pytest.approx([0.4])


def test_an_opening_is_not_matched_with_a_closing():
    found, = events([1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1])
    assert (found.recorded, found.predicted, len(found.errors_s)) == (1, 1, 0)


def test_beyond_the_window_an_event_is_missed_and_another_is_extra():
    pairs = [1] * 2 + [0] * 10, [1] * 7 + [0] * 5
    assert len(events(*pairs, window_s=0.9)[0].errors_s) == 0
    assert events(*pairs, window_s=1.0)[0].errors_s.tolist() == pytest.approx([1.0])


def test_flicker_is_extra():
    found, = events([1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 0])
    assert (found.recorded, found.predicted) == (1, 5)
    assert found.errors_s.tolist() == [0.0]


def test_the_closest_pair_is_matched_first():
    late = match(np.array([0, SECOND]), np.array([SECOND // 4 * 3]), 1.0)
    assert late.tolist() == pytest.approx([-0.25])


def test_a_frame_without_a_prediction_changes_no_side():
    found, = events([1, 1, 0, 0], [1, np.nan, 0, 0])
    assert (found.recorded, found.predicted) == (1, 1)
    assert found.errors_s.tolist() == [0.0]


def test_a_change_between_two_episodes_is_no_event():
    found = events([1, 1, 0, 0], [1, 1, 0, 0], episode=[0, 0, 1, 1])
    assert [part.recorded for part in found] == [0, 0]


def test_frames_may_come_in_any_order():
    rows = [[0.0] * 6 + [value] for value in (1.0, 1.0, 0.0, 0.0, 1.0)]
    frames = taken(replayed(rows, rows), [3, 0, 4, 2, 1])
    found, = gripper_events(frames, frames.comparable(), 1.0, np.array([0]))
    assert found.recorded == 2 and found.errors_s.tolist() == [0.0, 0.0]


def test_of_a_chunk_the_first_action_counts():
    recorded = np.ones((3, 2, 7))
    recorded[:, 1, 6] = 0.0
    frames = replayed(recorded, recorded)
    found, = gripper_events(frames, frames.comparable(), 1.0, np.array([0]))
    assert found.recorded == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), unique=True, max_size=8),
       st.lists(st.integers(0, 30), unique=True, max_size=8), st.floats(0.1, 5.0))
def test_matches_are_one_to_one_and_inside_the_window(recorded, predicted, window_s):
    times = [np.sort(np.array(side, np.int64)) * SECOND // 5 for side in (recorded, predicted)]
    errors = match(*times, window_s)
    assert len(errors) <= min(len(recorded), len(predicted))
    assert (np.abs(errors) <= window_s).all()
    assert match(times[0], times[0], window_s).tolist() == [0.0] * len(recorded)
