"""Drawings of a replay: every number inside, spikes kept, long episodes small."""

from dataclasses import replace
import re

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from replay_frames import replayed
from replay_frames import wandering

from vla_policy_node.evaluation.replay import charts


def paths(drawing, kind):
    """Return the path data of one kind of line, one per dimension."""
    return re.findall(rf'class="{kind}" d="([^"]*)"', drawing)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.integers(1, 20))
def test_thinning_keeps_the_extremes_of_every_column_and_both_ends(values, columns):
    times = np.arange(len(values), dtype=float)
    values = np.array(values)
    kept = charts.kept_points(times, values, columns)
    assert len(kept) <= 2 * columns + 2
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    assert (np.diff(kept) > 0).all()
    assert values[kept].min() == values.min() and values[kept].max() == values.max()


def test_a_spike_of_one_frame_stays_in_a_long_episode():
    recorded = np.zeros((20_000, 7))
    predicted = recorded.copy()
    predicted[12_345, 0] = 1.0
    drawing = charts.episode_chart(replayed(recorded, predicted), 0)
    line = paths(drawing, 'predicted')[0]
    heights = {float(point.split(',')[1]) for point in line.removeprefix('M').split()}
    assert len(heights) == 2
    assert len(drawing) < 160_000


def test_every_dimension_has_a_row_with_both_lines():
    drawing = charts.episode_chart(wandering(), 1)
    counts = [len(paths(drawing, kind)) for kind in ('recorded', 'predicted', 'against')]
    assert counts == [7, 7, 0]
    assert all(name in drawing for name in ('x [mm]', 'rz [°]', '>gripper<'))


def test_a_second_policy_is_drawn_over_the_same_time():
    frames = wandering()
    drawing = charts.episode_chart(frames, 1, replace(frames, name='other'))
    assert paths(drawing, 'against') == paths(drawing, 'predicted')


def test_a_line_is_interrupted_where_there_is_no_number():
    predicted = np.full((5, 7), 0.1)
    predicted[1] = np.nan
    line = paths(charts.episode_chart(replayed(np.zeros((5, 7)), predicted), 0), 'predicted')[0]
    assert line.count('M') == 2
    # The first piece is one point: a line of no length, drawn as a dot.
    assert 'h0M' in line


def test_an_episode_without_any_prediction_is_drawn_all_the_same():
    drawing = charts.episode_chart(replayed(np.zeros((3, 7)), np.full((3, 7), np.nan)), 0)
    assert paths(drawing, 'predicted') == [''] * 7 and 'nan' not in drawing


def test_one_frame_is_enough_for_a_drawing():
    drawing = charts.episode_chart(replayed(np.zeros((1, 7)), np.zeros((1, 7))), 0)
    assert 'nan' not in drawing and 'inf' not in drawing


def test_numbers_of_a_motion_that_hardly_moves_are_not_blown_up():
    recorded = np.zeros((4, 7))
    recorded[:, 0] = [0.0, 1e-9, 0.0, 1e-9]
    heights = [float(point.split(',')[1]) for point in paths(
        charts.episode_chart(replayed(recorded, recorded), 0), 'recorded')[0][1:].split()]
    assert max(heights) - min(heights) < 0.2


def test_a_constant_dimension_and_the_gripper_have_a_sensible_scale():
    frames = replayed(np.zeros((3, 7)), np.zeros((3, 7)), scale=np.zeros(7))
    drawing = charts.episode_chart(frames, 0)
    assert 'e-0' not in drawing
    labels = re.findall(r'text-anchor="end">([^<]*)</text>', drawing)
    assert labels[-4:-1] == ['0', '0.5', '1']


def test_the_values_under_the_pointer_are_in_the_units_of_people():
    recorded = np.zeros((2, 7))
    recorded[:, 0], recorded[:, 3] = 0.0125, np.pi / 180
    assert re.search(r'<title>0\.00 s: recorded, predicted\nx  12\.50  0\.00 mm\n',
                     charts.episode_chart(replayed(recorded, np.zeros((2, 7))), 0))
    assert 'rx  1.00  0.00 °' in charts.episode_chart(replayed(recorded, np.zeros((2, 7))), 0)


def test_empty_parts_of_a_reliability_diagram_have_no_dot():
    parts = [{'low': 0.0, 'high': 0.5, 'count': 0, 'confidence': None, 'right': None},
             {'low': 0.5, 'high': 1.0, 'count': 8, 'confidence': 0.75, 'right': 0.5}]
    drawing = charts.reliability_chart(parts, [])
    assert drawing.count('<circle') == 1
    assert 'confidence 75 %, right 50 %: 8 tokens' in drawing


def test_a_horizon_curve_has_a_line_per_rival_and_the_band_of_the_policy():
    def curve(*values):
        return [{'value': value, 'interval_95': None if value is None else
                 [value - 0.1, value + 0.1], 'count': 1} for value in values]

    drawing = charts.horizon_chart(
        {'policy': curve(0.2, 0.3, None), 'dataset_mean': curve(0.5, 0.5, 0.5)}, str)
    assert paths(drawing, 'policy')[0].count(',') == 2
    assert paths(drawing, 'dataset_mean')[0].count(',') == 3
    assert paths(drawing, 'band')[0].count(',') == 4
