"""Action space: normalisation in OpenVLA's form, selection of statistics, canonical actions."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_space import rotation_vector_from_rpy
from vla_policy_node.action_space import select_norm_stats

Q01 = (-0.02, -0.04, -0.01, -0.1, -0.2, -0.3, 0.0)
Q99 = (0.02, 0.06, 0.03, 0.1, 0.2, 0.5, 1.0)
MASK = (True, True, True, True, True, True, False)
ENTRY = {'q01': list(Q01), 'q99': list(Q99), 'mask': list(MASK)}


def make_stats(**changes):
    return NormStats(**{'q01': Q01, 'q99': Q99, 'mask': MASK, **changes})


def make_space(**changes):
    fields = {'frame': 'base', 'rotation': 'rotation_vector', 'gripper': 'open_is_one',
              'period_s': 0.2, 'stats': make_stats()}
    return ActionSpace(**{**fields, **changes})


def test_the_quantiles_map_to_the_ends():
    stats = make_stats()
    np.testing.assert_allclose(stats.normalize(Q01), [-1, -1, -1, -1, -1, -1, 0], atol=1e-6)
    np.testing.assert_allclose(stats.normalize(Q99), [1, 1, 1, 1, 1, 1, 1], atol=1e-6)


def test_openvla_formula_on_a_literal_action():
    action = [0.01, 0.01, 0.0, 0.05, 0.0, 0.1, 0.25]
    np.testing.assert_allclose(
        make_stats().normalize(action), [0.5, 0.0, -0.5, 0.5, 0.0, 0.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(
        make_stats().unnormalize([0.5, 0.0, -0.5, 0.5, 0.0, 0.0, 0.25]), action, atol=1e-12)


def test_actions_beyond_the_quantiles_are_clipped():
    far = np.full(7, 9.0)
    np.testing.assert_array_equal(make_stats().normalize(far), np.ones(7))
    np.testing.assert_array_equal(make_stats().normalize(-far), -np.ones(7))


def test_a_constant_dimension_becomes_zero_and_comes_back():
    stats = make_stats(q01=(0.3,) + Q01[1:], q99=(0.3,) + Q99[1:])
    normalised = stats.normalize([0.3, 0, 0, 0, 0, 0, 0])
    assert normalised[0] == 0.0
    assert stats.unnormalize(normalised)[0] == pytest.approx(0.3)


def test_a_constant_unmasked_gripper_stays_itself():
    stats = make_stats(q01=Q01[:6] + (1.0,))
    assert stats.normalize([0, 0, 0, 0, 0, 0, 1.0])[6] == 1.0


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (3, 7), elements=st.floats(-1, 1)))
def test_values_survive_the_way_to_physical_and_back(values):
    stats = make_stats()
    np.testing.assert_allclose(stats.normalize(stats.unnormalize(values)), values, atol=1e-5)


@pytest.mark.parametrize('odd', [np.nan, np.inf])
def test_a_non_finite_action_is_refused_by_its_dimension(odd):
    with pytest.raises(ValueError, match='expected finite numbers, found (nan|inf) in dim.* ry'):
        make_stats().normalize([0, 0, 0, 0, odd, 0, 0])


def test_a_wrong_action_dimension_is_refused():
    with pytest.raises(ValueError, match=r'expected shape \(\.\.\., 7\), found \(2, 6\)'):
        make_stats().unnormalize(np.zeros((2, 6)))


@pytest.mark.parametrize(('changes', 'message'), [
    ({'q01': Q01[:6]}, r'expected 7 numbers in q01, found shape \(6,\)'),
    ({'q99': Q99[:6] + (np.nan,)}, 'expected finite numbers in q99, found nan in dim.* gripper'),
    ({'q01': Q99, 'q99': Q01}, 'expected q01 <= q99 in dimension x, found 0.02 > -0.02'),
    ({'mask': (True,) * 6}, 'expected 7 booleans in mask'),
    ({'mask': (1, 1, 1, 1, 1, 1, 0)}, 'expected 7 booleans in mask'),
    ({'extra': {'mean': (0.0,)}}, r'expected 7 numbers in mean, found shape \(1,\)'),
])
def test_bad_statistics_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_stats(**changes)


def test_statistics_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match='read-only'):
        make_stats().q01[0] = 1.0


def test_a_missing_mask_means_every_dimension():
    assert NormStats.from_dict({'q01': Q01, 'q99': Q99}).mask.all()


def test_extra_statistics_survive_the_dict():
    entry = {**ENTRY, 'mean': [0.1] * 7, 'std': [0.2] * 7}
    assert NormStats.from_dict(entry).to_dict() == entry


def test_an_entry_without_quantiles_is_refused():
    with pytest.raises(ValueError, match=r"expected q01 and q99, found only \['mean'\]"):
        NormStats.from_dict({'mean': [0.0] * 7})


def test_statistics_are_computed_from_actions():
    actions = np.linspace(0.0, 1.0, 101)[:, None] * np.ones(7)
    stats = NormStats.from_actions(actions)
    np.testing.assert_allclose(stats.q01, 0.01)
    np.testing.assert_allclose(stats.q99, 0.99)
    assert stats.mask.tolist() == list(MASK)
    assert stats.extra['min'] == (0.0,) * 7
    assert stats.extra['max'] == (1.0,) * 7
    assert stats.extra['mean'] == pytest.approx((0.5,) * 7)


def test_no_actions_give_no_statistics():
    with pytest.raises(ValueError, match=r'expected actions of shape \(N, 7\) with N >= 1'):
        NormStats.from_actions(np.zeros((0, 7)))


def test_the_only_data_set_needs_no_key():
    key, stats = select_norm_stats({'tabletop': {'action': ENTRY}}, None)
    assert key == 'tabletop'
    np.testing.assert_array_equal(stats.q99, Q99)


@pytest.mark.parametrize('key', [None, 'bridge'])
def test_an_unusable_key_lists_the_known_ones(key):
    two = {'tabletop': {'action': ENTRY}, 'bridge_orig': {'action': ENTRY}}
    with pytest.raises(ValueError, match=r'unnorm_key: expected one of \[bridge_orig, tabletop\]'):
        select_norm_stats(two, key)


def test_a_data_set_without_actions_is_refused():
    with pytest.raises(ValueError, match="expected an 'action' entry, found"):
        select_norm_stats({'tabletop': {'proprio': {}}}, 'tabletop')


def rotation_about(axis, angle):
    """Rotation matrix about one axis, right-handed."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -np.sin(angle)
    return matrix


def matrix_from_vector(vector):
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    if angle == 0.0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float64, 3, elements=st.floats(-7, 7)))
def test_fixed_axis_angles_and_their_vector_are_the_same_rotation(rpy):
    roll, pitch, yaw = rpy
    expected = rotation_about(2, yaw) @ rotation_about(1, pitch) @ rotation_about(0, roll)
    vector = rotation_vector_from_rpy(rpy)
    np.testing.assert_allclose(matrix_from_vector(vector), expected, atol=1e-9)
    assert np.linalg.norm(vector) <= np.pi + 1e-9


def test_a_single_axis_angle_is_its_own_vector():
    np.testing.assert_allclose(
        rotation_vector_from_rpy([[0.3, 0, 0], [0, -0.3, 0], [0, 0, 1e-9], [0, 0, 0]]),
        [[0.3, 0, 0], [0, -0.3, 0], [0, 0, 1e-9], [0, 0, 0]], atol=1e-18, rtol=1e-12)


def test_canonical_actions_of_a_canonical_space_are_unchanged():
    actions = [[0.01, -0.02, 0.03, 0.1, 0.2, 0.3, 0.75]]
    np.testing.assert_array_equal(make_space().to_canonical(actions), actions)


def test_a_gripper_that_opens_at_zero_is_turned_round():
    actions = [[0, 0, 0, 0, 0, 0, 0.25]]
    assert make_space(gripper='open_is_zero').to_canonical(actions)[0, 6] == 0.75


def test_the_gripper_never_leaves_its_range():
    actions = np.zeros((2, 7))
    actions[:, 6] = (-0.7, 1.2)
    np.testing.assert_array_equal(make_space().to_canonical(actions)[:, 6], [0.0, 1.0])


def test_fixed_axis_rotations_become_vectors():
    actions = np.array([[0, 0, 0, np.pi / 2, 0, np.pi / 2, 0]])
    third = 2 * np.pi / 3 / np.sqrt(3)
    np.testing.assert_allclose(
        make_space(rotation='fixed_axis_rpy').to_canonical(actions)[0, 3:6],
        [third, third, third], atol=1e-12)
    assert actions[0, 4] == 0.0


@pytest.mark.parametrize(('changes', 'message'), [
    ({'rotation': 'euler'}, r'expected rotation one of \[rotation_vector, fixed_axis_rpy\]'),
    ({'gripper': 'open'}, r'expected gripper one of \[open_is_one, open_is_zero\]'),
    ({'period_s': 0.0}, 'expected period_s > 0, found 0.0'),
    ({'period_s': float('nan')}, 'expected period_s > 0, found nan'),
    ({'frame': ''}, "expected a frame name, found ''"),
])
def test_a_bad_action_space_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_space(**changes)
