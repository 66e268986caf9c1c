"""Numbers of a data set become end-effector deltas, whatever form they were recorded in."""

from collections.abc import Callable
from pathlib import Path
import pickle
from typing import Any

import numpy as np
from pydantic import ValidationError
import pytest

from vla_policy_node.training.sources.canonical import canonical_actions
from vla_policy_node.training.sources.config import ActionSpec
from vla_policy_node.training.sources.steps import Steps

QUARTER = np.pi / 2


def _spec(mode: str, **parts: Any) -> ActionSpec:
    return ActionSpec.model_validate(
        {'mode': mode, 'translation': {'indices': [0, 1, 2]}, **parts})


def _actions(
    spec: ActionSpec, rows: list[list[float]], *, stride: int = 1, feature: str = 'action',
) -> np.ndarray:
    return canonical_actions({feature: np.array(rows)}, spec, fps=10.0, stride=stride)


def _about_z(angle: float) -> list[float]:
    return [0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)]


def test_deltas_are_scaled_to_metres_and_radians() -> None:
    spec = _spec('delta', translation={'indices': [2, 1, 0], 'scale': 0.001},
                 rotation={'indices': [3, 4, 5], 'scale': np.pi / 180},
                 gripper={'index': 6, 'closed': 100.0, 'open': 0.0})
    actions = _actions(spec, [[30.0, 20.0, 10.0, 0.0, 0.0, 90.0, 25.0]])
    np.testing.assert_allclose(actions, [[0.01, 0.02, 0.03, 0.0, 0.0, QUARTER, 0.75]])


def test_velocities_are_multiplied_with_the_time_of_a_step() -> None:
    spec = _spec('velocity', rotation={'indices': [3, 4, 5]})
    actions = _actions(spec, [[0.5, 0.0, 0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(actions, [[0.05, 0.0, 0.0, 0.0, 0.0, 0.1, 1.0]])


def test_roll_pitch_and_yaw_become_a_rotation_vector() -> None:
    spec = _spec('delta', rotation={'indices': [3, 4, 5], 'form': 'fixed_axis_rpy'})
    actions = _actions(spec, [[0.0, 0.0, 0.0, QUARTER, 0.0, QUARTER]])
    third = 2 * np.pi / 3 / np.sqrt(3)      # a third of a turn about (1, 1, 1)
    np.testing.assert_allclose(actions[0, 3:6], [third, third, third])


def test_commanded_poses_are_compared_with_the_ones_before() -> None:
    spec = _spec('absolute', rotation={'indices': [3, 4, 5, 6], 'form': 'quaternion_xyzw'})
    actions = _actions(spec, [
        [0.1, 0.0, 0.0, *_about_z(3.0)], [0.3, 0.0, 0.0, *_about_z(3.2)],
        [0.3, 0.0, -0.1, *(-x for x in _about_z(3.3))]])
    np.testing.assert_allclose(actions, [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.2, 0.0, 0.0, 0.0, 0.0, 0.2, 1.0],
        [0.0, 0.0, -0.1, 0.0, 0.0, 0.1, 1.0]], atol=1e-12)


def test_observed_poses_are_compared_with_the_ones_after() -> None:
    feature = 'observation.state'
    spec = _spec('absolute', translation={'feature': feature, 'indices': [0, 1, 2]},
                 rotation={'feature': feature, 'indices': [3, 4, 5], 'form': 'fixed_axis_rpy'},
                 gripper={'feature': feature, 'index': 6})
    actions = _actions(spec, [
        [0.1, 0.0, 0.0, 0.0, 0.0, 3.1, 1.0], [0.3, 0.0, 0.0, 0.0, 0.0, -3.1, 0.5],
        [0.3, 0.0, 0.0, 0.0, 0.0, -3.0, 0.0]], feature=feature)
    turned = 2 * np.pi - 6.2    # the short way, through pi
    np.testing.assert_allclose(actions, [
        [0.2, 0.0, 0.0, 0.0, 0.0, turned, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], atol=1e-12)


def test_a_rotation_between_poses_is_about_fixed_axes() -> None:
    spec = _spec('absolute', rotation={'indices': [3, 4, 5, 6], 'form': 'quaternion_xyzw'})
    # Turned by 0.5 about x after a quarter turn about z: still x, not the turned tool's x.
    after = [np.sin(0.25) * np.cos(QUARTER / 2), -np.sin(0.25) * np.sin(QUARTER / 2),
             np.cos(0.25) * np.sin(QUARTER / 2), np.cos(0.25) * np.cos(QUARTER / 2)]
    actions = _actions(spec, [[0.0] * 3 + _about_z(QUARTER), [0.0] * 3 + after])
    np.testing.assert_allclose(actions[1, 3:6], [0.5, 0.0, 0.0], atol=1e-12)


def test_an_action_of_several_steps_takes_them_one_after_the_other() -> None:
    spec = _spec('delta', rotation={'indices': [3, 4, 5]}, gripper={'index': 6})
    actions = _actions(spec, [
        [0.01, 0.0, 0.0, QUARTER, 0.0, 0.0, 1.0], [0.02, 0.0, 0.0, 0.0, 0.0, QUARTER, 0.0],
        [0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]], stride=2)
    third = 2 * np.pi / 3 / np.sqrt(3)
    np.testing.assert_allclose(actions, [
        [0.03, 0.0, 0.0, third, third, third, 0.0], [0.06, 0.0, 0.0, 0.0, 0.0, QUARTER, 0.5],
        [0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]], atol=1e-12)


def test_gripper_values_beyond_its_ends_are_clipped() -> None:
    spec = _spec('delta', gripper={'index': 3, 'closed': 1.0, 'open': -1.0})
    actions = _actions(spec, [[0.0, 0.0, 0.0, 1.2], [0.0, 0.0, 0.0, -1.2], [0.0] * 4])
    assert actions[:, 6].tolist() == [0.0, 1.0, 0.5]


def test_a_quaternion_of_nothing_is_not_finite() -> None:
    spec = _spec('absolute', rotation={'indices': [3, 4, 5, 6], 'form': 'quaternion_xyzw'})
    assert np.isnan(_actions(spec, [[0.0] * 7, [0.0] * 7])[1, 3:6]).all()


@pytest.mark.parametrize(('parts', 'text'), [
    ({'mode': 'jump'}, "'delta', 'velocity' or 'absolute'"),
    ({'rotation': {'indices': [3, 4, 5, 6], 'form': 'quaternion_xyzw'}}, 'not of mode delta'),
    ({'rotation': {'indices': [3, 4, 5, 6]}}, 'rotation_vector needs 3 indices, found 4'),
    ({'rotation': {'indices': [3, 4, 5], 'form': 'quaternion_xyzw'}}, 'needs 4 indices, found 3'),
    ({'mode': 'velocity', 'rotation': {'indices': [3, 4, 5], 'form': 'fixed_axis_rpy'}},
     'an angular velocity is a rotation_vector'),
    ({'gripper': {'index': 6, 'closed': 1.0}}, 'closed and open must differ, both are 1.0'),
    ({'translation': {'indices': [0, 1]}}, 'translation.indices'),
    ({'translation': {'indices': [0, 1, -1]}}, 'greater than or equal to 0'),
    ({'wrist': {}}, 'wrist'),
])
def test_a_specification_that_means_nothing_is_refused(parts: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        _spec(parts.pop('mode', 'delta'), **parts)


@pytest.fixture
def steps(tmp_path: Path) -> Callable[[int], Steps]:
    actions = np.zeros((5, 7))
    actions[:, 0] = [1.0, 2.0, 3.0, 4.0, 5.0]
    actions[:, 6] = [0.0, 0.1, 0.2, 0.3, 0.4]
    episodes = np.array([0, 0, 0, 7, 7])
    return lambda stride: Steps(tmp_path, actions=actions, episodes=episodes, stride=stride)


def test_the_actions_from_a_step_on_end_with_its_episode(steps: Callable[[int], Steps]) -> None:
    actions, ends = steps(1).window(1, 3)
    assert actions[:, 0].tolist() == [2.0, 3.0, 0.0]
    assert actions[:, 6].tolist() == [0.1, 0.2, 0.2]
    assert ends


def test_the_last_step_of_an_episode_is_inside_the_window_that_ends_there(
    steps: Callable[[int], Steps],
) -> None:
    some = steps(1)
    assert [some.window(index, 2)[1] for index in range(5)] == [False, True, True, True, True]
    assert [some.window(index, 1)[1] for index in range(5)] == [False, False, True, False, True]


def test_actions_of_two_steps_are_two_steps_apart(steps: Callable[[int], Steps]) -> None:
    actions, ends = steps(2).window(0, 2)
    assert actions[:, 0].tolist() == [1.0, 3.0]
    assert ends


def test_steps_are_kept_once_and_pickled_as_their_place(
    steps: Callable[[int], Steps], tmp_path: Path,
) -> None:
    first, second = steps(1), steps(1)
    assert len(list(tmp_path.iterdir())) == 1
    assert first.digest() == second.digest()
    copy = pickle.loads(pickle.dumps(first))
    assert len(pickle.dumps(first)) < 1000
    assert copy.actions.tolist() == first.actions.tolist()
