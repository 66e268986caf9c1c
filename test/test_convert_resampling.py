"""Which observations become the steps of a data set: the nearest ones, never across a pause."""

from dataclasses import dataclass

import numpy as np
import pytest

from vla_policy_node.training.convert.resampling import plan_frames

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000


@dataclass
class Observed:
    """Observations at times [ms]; nan: those without an action."""

    at_ms: list[float]
    nan: tuple[int, ...] = ()

    @property
    def stamp_ns(self):
        return START_NS + np.round(np.array(self.at_ms) * MS).astype(np.int64)

    @property
    def actions(self):
        actions = np.ones((len(self.at_ms), 7))
        actions[list(self.nan), 3] = np.nan
        return actions


def pieces(at_ms, nan=(), period_s=0.2):
    return [piece.tolist() for piece in plan_frames(Observed(at_ms, nan), period_s).pieces]


def test_observations_at_the_period_become_one_step_each():
    assert pieces([0, 200, 400, 600]) == [[0, 1, 2, 3]]


def test_of_a_faster_camera_the_nearest_to_every_period_are_taken():
    at_ms = [1000 / 30 * n for n in range(31)]
    assert pieces(at_ms) == [[0, 6, 12, 18, 24, 30]]


def test_jitter_neither_repeats_nor_drops_an_observation():
    at_ms = [0, 195, 408, 594, 803, 999]
    assert pieces(at_ms) == [[0, 1, 2, 3, 4, 5]]


def test_of_two_equally_near_the_earlier_one_is_taken():
    assert pieces([0, 150, 250, 400]) == [[0, 1, 3]]


def test_a_camera_a_little_slower_than_the_steps_repeats_one_in_a_while_and_keeps_time():
    at_ms = [204 * n for n in range(101)]    # 20.4 s
    (piece,) = pieces(at_ms)
    assert len(piece) == 103
    assert np.abs(np.array(at_ms)[piece] - 200 * np.arange(103)).max() <= 102
    assert np.count_nonzero(np.diff(piece) == 0) == 2


def test_a_camera_a_little_faster_than_the_steps_leaves_one_out_and_makes_no_cut():
    at_ms = [196 * n for n in range(101)]    # 19.6 s
    (piece,) = pieces(at_ms)
    assert len(piece) == 99
    assert np.count_nonzero(np.diff(piece) == 2) == 2


@pytest.mark.parametrize(('nan', 'expected'), [
    ((2,), [[0, 1], [3, 4, 5]]),
    ((0, 5), [[1, 2, 3, 4]]),
])
def test_a_step_without_an_action_ends_the_episode(nan, expected):
    assert pieces([0, 200, 400, 600, 800, 1000], nan) == expected


def test_a_faster_camera_bridges_a_frame_without_an_action():
    at_ms = [50 * n for n in range(13)]
    assert pieces(at_ms, nan=(4,)) == [[0, 3, 8, 12]]


def test_an_observation_between_two_pauses_is_left_out_and_counted():
    plan = plan_frames(Observed([0, 200, 1000, 2000, 2200], nan=()), 0.2)
    assert [piece.tolist() for piece in plan.pieces] == [[0, 1], [3, 4]]
    assert (plan.alone, plan.unusable, plan.frames) == (1, 0, 4)


def test_after_a_pause_the_steps_begin_at_the_next_observation():
    assert pieces([0, 200, 650, 850]) == [[0, 1], [2, 3]]


@pytest.mark.parametrize('at_ms', [[], [0]])
def test_an_episode_without_duration_has_no_steps(at_ms):
    assert pieces(at_ms) == []
