"""The worst frames: which they are, and what is drawn on them."""

from dataclasses import replace
import re

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import wandering

from vla_policy_node.evaluation.replay import film

PICTURE = np.zeros((60, 80, 3), np.uint8)


def frame_of(recorded, predicted):
    return film.WorstFrame(picture=PICTURE, recorded=np.atleast_2d(np.array(recorded, float)),
                           predicted=np.atleast_2d(np.array(predicted, float)), caption='')


def moving(x=0.0, y=0.0, z=0.0):
    return [x, y, z, 0.0, 0.0, 0.0, 1.0]


def drawn(frame, reach=0.1):
    """Return {kind: [points of the shafts and heads]} of the two arrows of each kind."""
    found = {}
    for kind, group in re.findall(r'<g class="(\w+)">(.*?)</g>', film.overlay(frame, reach)):
        found[kind] = [[tuple(map(float, point.split(','))) for point in points.split()]
                       for points in re.findall(r'<polygon points="([^"]*)"', group)]
    return found


def test_the_error_of_a_frame_is_normalised_and_ignores_what_cannot_be_compared():
    frames = replayed([[0.0] * 7] * 3, [[0.5] + [0.0] * 6, [0.5] + [np.nan] * 6, [np.nan] * 7],
                      scale=np.array([0.5, 1, 1, 1, 1, 1, 0.0]))
    errors = film.frame_errors(frames)
    assert errors[0] == pytest.approx(6 ** -0.5)
    assert errors[1] == pytest.approx(1.0)
    assert np.isnan(errors[2])


def test_the_worst_come_first_and_neighbours_of_the_same_moment_do_not_come_at_all():
    predicted = np.zeros((20, 7))
    predicted[4:7, 0] = [0.8, 0.9, 0.7]
    predicted[15, 0] = 0.5
    frames = replayed(np.zeros((20, 7)), predicted)
    assert film.worst_frames(frames, 2) == [5, 15]


def test_the_same_time_in_another_episode_is_another_moment():
    frames = replayed(np.zeros((2, 7)), np.full((2, 7), 0.5), episode=[0, 1])
    assert sorted(film.worst_frames(replace(frames, stamp_ns=np.zeros(2, np.int64)), 5)) == [0, 1]


def test_frames_that_cannot_be_compared_are_not_shown():
    assert film.worst_frames(replayed([[np.nan] * 7], [[0.0] * 7]), 3) == []
    assert len(film.worst_frames(wandering(), 3)) == 3
    assert film.worst_frames(wandering(), 0) == []


def test_a_caption_names_episode_and_time():
    frames = wandering(episodes=2)
    assert film.worst_frame(frames, 15, PICTURE).caption == 'episode 1, 0.6 s'


def test_ahead_is_up_and_left_is_left():
    ahead, left = (drawn(frame_of(moving(), move))['predicted'][0][0]
                   for move in (moving(x=0.1), moving(y=0.1)))
    centre = 14.0, 75.0 - 14.0
    assert ahead == (pytest.approx(centre[0]), pytest.approx(centre[1] - 11.0))
    assert left == (pytest.approx(centre[0] - 11.0), pytest.approx(centre[1]))


def test_upwards_is_in_the_bar_beside_the_compass():
    arrows = drawn(frame_of(moving(z=0.1), moving(z=-0.05)))
    assert arrows['recorded'][0][0][1] == pytest.approx(61.0 - 11.0)
    assert arrows['predicted'][0][0][1] == pytest.approx(61.0 + 5.5)


def test_no_motion_is_a_dot():
    drawing = film.overlay(frame_of(moving(), moving()), 0.1)
    assert drawing.count('class="end"') == 4 and '<polygon' not in drawing


def test_a_chunk_is_the_way_through_the_steps_that_both_have():
    recorded = [moving(x=0.02), moving(y=0.02), moving(x=np.nan)]
    frame = frame_of(recorded, [moving(x=0.02), moving(x=0.02), moving(x=0.5)])
    first, second = film.motion(frame)
    assert len(first) == len(second) == 2
    assert drawn(frame)['predicted'][0][0] == (14.0, pytest.approx(61.0 - 4.4))


def test_a_frame_with_nothing_in_common_has_no_arrow():
    drawing = film.overlay(frame_of(moving(x=np.nan), moving(x=0.1)), 0.1)
    assert '<g class=' not in drawing and 'nan' not in drawing


def test_the_ring_is_round_holds_every_way_and_does_not_blow_up_small_ones():
    frames = [frame_of(moving(x=0.033), moving()), frame_of(moving(x=0.001), moving())]
    assert film.reaches_m(frames) == [pytest.approx(0.035), pytest.approx(0.007)]
    assert film.reaches_m([]) == []
    assert '35 mm' in film.overlay(frames[0], 0.035)


def test_pictures_are_small_jpegs():
    uri = film.data_uri(np.full((960, 1280, 3), 200, np.uint8))
    assert uri.startswith('data:image/jpeg;base64,/9j/') and len(uri) < 20_000
