"""The simulated robot follows its commands, repeats itself exactly and refuses bad input."""

import numpy as np
import pytest

from vla_policy_node.simulation import expert_action
from vla_policy_node.simulation import parse_task
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import TASKS

DOWN = (0.0, 1.0, 0.0, 0.0)


@pytest.fixture(scope='module')
def sim():
    """Return a simulator without cameras."""
    return TabletopSim(image_size=None)


def _roll_out(sim, seed):
    task = sim.reset(seed)
    for _ in range(12):
        sim.apply_delta(expert_action(sim.state(), task))
    return task, sim.joint_state()[1], sim.state()


def test_the_same_seed_gives_the_same_episode_to_the_last_bit(sim):
    task, joints, state = _roll_out(sim, 7)
    _roll_out(sim, 8)
    again = _roll_out(sim, 7)
    fresh = _roll_out(TabletopSim(image_size=None), 7)
    for other_task, other_joints, other_state in (again, fresh):
        assert other_task == task
        np.testing.assert_array_equal(other_joints, joints)
        for colour, position in state.blocks.items():
            np.testing.assert_array_equal(other_state.blocks[colour], position)


def test_a_drawn_task_has_the_same_scene_as_when_it_is_named(sim):
    task = sim.reset(5)
    drawn = sim.state()
    assert sim.reset(5, task) == task
    named = sim.state()
    assert list(drawn.blocks) == list(named.blocks)
    np.testing.assert_array_equal(drawn.tool, named.tool)


def test_scenes_hold_the_named_block_and_one_or_two_others_well_apart(sim):
    for seed in range(20):
        for task in TASKS[::5]:
            sim.reset(seed, task)
            blocks = sim.state().blocks
            assert task.colour in blocks
            assert len(blocks) in (2, 3)
            places = np.array(list(blocks.values()))[:, :2]
            gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
            assert gaps[np.triu_indices(len(places), 1)].min() >= 0.10
            assert np.all(places >= (0.40, -0.15)) and np.all(places <= (0.60, 0.15))


def test_the_tool_starts_above_the_workspace_pointing_down_with_open_fingers(sim):
    for seed in range(5):
        sim.reset(seed)
        position, quaternion = sim.tool_pose()
        assert np.all(np.abs(position[:2] - (0.5, 0.0)) <= 0.0601)
        assert 0.139 <= position[2] <= 0.201
        np.testing.assert_allclose(np.abs(quaternion), DOWN, atol=1e-3)
        assert sim.gripper_opening() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize('delta', [
    (0.04, 0.0, 0.0), (-0.04, 0.0, 0.0), (0.0, 0.04, 0.0), (0.0, 0.0, -0.04),
    (0.02, -0.02, 0.025),
])
def test_a_delta_is_reached_within_two_millimetres_and_settles_within_half_of_one(sim, delta):
    sim.reset(0, parse_task('touch red'))
    sim.step(0.1)
    start, _ = sim.tool_pose()
    sim.apply_delta([*delta, 0, 0, 0, 1])
    assert np.linalg.norm(sim.tool_pose()[0] - start - delta) < 0.002
    sim.step(0.2)
    position, quaternion = sim.tool_pose()
    assert np.linalg.norm(position - start - delta) < 0.0005
    np.testing.assert_allclose(np.abs(quaternion), DOWN, atol=1e-3)


def test_an_angular_velocity_turns_the_tool_about_the_axes_of_the_base(sim):
    sim.reset(0)
    start, _ = sim.tool_pose()
    sim.set_twist((0, 0, 0), (0, 0, 0.5))
    sim.step(0.8)
    sim.set_twist((0, 0, 0))
    sim.step(0.2)
    position, quaternion = sim.tool_pose()
    # A turn by 0.4 rad about z after half a turn about x.
    np.testing.assert_allclose(quaternion, (0, np.cos(0.2), np.sin(0.2), 0), atol=2e-3)
    assert np.linalg.norm(position - start) < 0.002


def test_a_pose_target_is_reached_and_kept(sim):
    sim.reset(0)
    sim.set_pose_target((0.45, 0.12, 0.15), DOWN)
    sim.step(1.5)
    np.testing.assert_allclose(sim.tool_pose()[0], (0.45, 0.12, 0.15), atol=0.001)


def test_a_twist_holds_until_it_is_changed(sim):
    sim.reset(0)
    start, _ = sim.tool_pose()
    sim.set_twist((0, 0.1, 0))
    sim.step(0.3)
    sim.step(0.3)
    sim.set_twist((0, 0, 0))
    sim.step(0.2)
    assert sim.tool_pose()[0][1] - start[1] == pytest.approx(0.06, abs=0.001)


def test_speed_is_limited_by_the_arm_itself(sim):
    sim.reset(0)
    start, _ = sim.tool_pose()
    sim.set_twist((0, 50.0, 0))
    sim.step(0.2)
    assert np.linalg.norm(sim.tool_pose()[0] - start) < 0.11


def test_the_tool_stops_at_the_table_however_long_it_is_sent_down(sim):
    sim.reset(0)
    sim.set_twist((0, 0, -0.5))
    heights = []
    for _ in range(20):
        sim.step(0.1)
        heights.append(sim.tool_pose()[0][2])
    assert min(heights) > 0.008  # the fingers end 8 mm below the tool point
    sim.set_twist((0, 0, 0.2))
    sim.step(0.3)
    assert sim.tool_pose()[0][2] > 0.05


def test_the_tool_stays_within_reach_however_long_it_is_sent_away(sim):
    sim.reset(0)
    sim.set_twist((0.5, -0.5, 0.5))
    sim.step(4.0)
    np.testing.assert_allclose(sim.tool_pose()[0], (0.68, -0.30, 0.32), atol=0.001)


def test_the_gripper_closes_and_opens(sim):
    sim.reset(0)
    sim.set_gripper(0.0)
    sim.step(1.0)
    assert sim.gripper_opening() < 0.02
    sim.set_gripper(0.5)
    sim.step(1.0)
    assert sim.gripper_opening() == pytest.approx(0.5, abs=0.02)


def test_a_block_two_centimetres_off_centre_is_still_grasped_and_lifted(sim):
    sim.reset(0, parse_task('pick red'))
    x, y, _ = sim.state().blocks['red']
    for z in (0.12, 0.02):
        sim.set_pose_target((x, y + 0.02, z), DOWN)
        sim.step(1.5)
    sim.set_gripper(0.0)
    sim.step(0.6)
    assert sim.state().held == 'red'
    sim.set_twist((0, 0, 0.2))
    sim.step(0.5)
    assert sim.state().held == 'red'
    assert sim.state().blocks['red'][2] > 0.10


def test_a_block_under_closed_fingers_is_touched_but_not_held(sim):
    sim.reset(0, parse_task('touch red'))
    block = sim.state().blocks['red']
    sim.set_gripper(0.0)
    sim.set_pose_target((block[0], block[1], 0.10), DOWN)
    sim.step(1.5)
    assert 'red' not in sim.state().last_contact_s
    sim.set_pose_target((block[0], block[1], 0.045), DOWN)
    sim.step(1.0)
    assert sim.state().held is None
    assert sim.state().last_contact_s['red'] == pytest.approx(sim.state().time_s, abs=0.02)


def test_time_adds_up_over_steps_that_are_no_whole_control_periods(sim):
    sim.reset(0)
    for _ in range(30):
        sim.step(1 / 30)
    assert sim.state().time_s == pytest.approx(1.0, abs=0.0101)


def test_joint_state_names_seven_arm_joints_and_two_fingers(sim):
    names, positions, velocities = sim.joint_state()
    assert names[:7] == tuple(f'joint{i}' for i in range(1, 8))
    assert names[7:] == ('finger_left', 'finger_right')
    assert positions.shape == velocities.shape == (9,)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda sim: sim.apply_delta([0.0] * 6), 'action must be 7 finite numbers'),
    (lambda sim: sim.apply_delta([float('nan')] * 7), 'action must be 7 finite numbers'),
    (lambda sim: sim.set_twist((0, 0)), 'linear velocity must be 3 finite numbers'),
    (lambda sim: sim.set_twist((0, 0, 0), (0, 0, float('inf'))), 'angular velocity'),
    (lambda sim: sim.set_gripper(float('nan')), 'gripper opening must be 1 finite'),
    (lambda sim: sim.set_pose_target((0, 0, 0), (0, 0, 0, 0)), 'quaternion must not be zero'),
])
def test_a_bad_command_is_refused_and_moves_nothing(sim, call, message):
    sim.reset(0)
    start, _ = sim.tool_pose()
    with pytest.raises(ValueError, match=message):
        call(sim)
    sim.step(0.2)
    np.testing.assert_allclose(sim.tool_pose()[0], start, atol=1e-3)
