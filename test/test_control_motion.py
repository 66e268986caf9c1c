"""What the controller does with good chunks: steps, gripper, pose output, helpers."""

from pathlib import Path
import re

from control_bench import Bench
from control_bench import delta
from control_bench import speed
from control_bench import TICK_S
from control_bench import UNTURNED
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from vla_policy_node.action_space import rotation_vector_from_rpy
from vla_policy_node.control import ControlParameters
from vla_policy_node.control import Reason
from vla_policy_node.control import rotation
from vla_policy_node.control import State
from vla_policy_node.control import STATE_TEXT
from vla_policy_node.control.gripper import GripperTrigger
from vla_policy_node.control.limits import delta_to_twist

MESSAGE = Path(__file__).parents[1] / 'vla_msgs' / 'msg' / 'ControllerStatus.msg'


def test_a_delta_over_its_period_becomes_the_twist_that_makes_it():
    bench = Bench(max_linear_mps2=50.0, max_angular_radps2=200.0, overrun_s=0.0)
    start = bench.position.copy()
    bench.send(delta(x=0.02, y=-0.01, rz=0.1))
    command = bench.tick()
    assert command.linear == pytest.approx([0.1, -0.05, 0.0])
    assert command.angular == pytest.approx([0.0, 0.0, 0.5])
    bench.run(0.5)
    assert bench.position - start == pytest.approx([0.02, -0.01, 0.0], abs=0.1 * TICK_S + 1e-3)


@pytest.mark.parametrize('vector', [(0.3, -0.2, 0.1), (0.0, 0.0, 3.0), (1e-9, 0.0, 0.0)])
def test_the_angular_velocity_makes_exactly_the_rotation_vector(vector):
    vector = np.array(vector)
    _, angular, _ = delta_to_twist(
        np.concatenate((np.zeros(3), vector)), 0.25, max_delta_m=1.0, max_delta_rad=np.pi,
        max_linear_mps=2.0, max_angular_radps=100.0)
    turned = np.array(UNTURNED)
    for _ in range(250):
        turned = rotation.multiply(rotation.from_rotation_vector(angular * 0.001), turned)
    assert rotation.to_rotation_vector(turned) == pytest.approx(vector, abs=1e-12)


def turned_by_axes(roll, pitch, yaw):
    """Return the matrix of three turns about fixed axes: x, then y, then z."""
    def turn(axis, angle):
        matrix = np.eye(3)
        first, second = [index for index in range(3) if index != axis]
        matrix[[first, second], [first, second]] = np.cos(angle)
        sign = -1.0 if axis == 1 else 1.0
        matrix[second, first], matrix[first, second] = sign * np.sin(angle), -sign * np.sin(angle)
        return matrix
    return turn(2, yaw) @ turn(1, pitch) @ turn(0, roll)


def matrix_of(quaternion):
    w, (x, y, z) = quaternion[0], quaternion[1:]
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])


@pytest.mark.parametrize('rpy', [(0.3, -0.2, 0.4), (0.0, 0.5, 0.0), (-0.4, 0.1, 0.3)])
def test_fixed_axis_roll_pitch_yaw_is_executed_as_the_rotation_that_it_means(rpy):
    bench = Bench(pose_output=True, max_lead_rad=1.5, max_delta_rad=1.0, max_angular_radps=6.0,
                  max_angular_radps2=200.0, overrun_s=0.01)
    bench.send([0.0, 0.0, 0.0, *rotation_vector_from_rpy(np.array(rpy)), 0.5])
    # Reached within a tick, held for ten ticks, and back at zero within the next.
    command = bench.run(0.3)[-1]
    assert matrix_of(command.pose.quaternion) == pytest.approx(turned_by_axes(*rpy), abs=1e-9)


@pytest.mark.parametrize(('sent_after_s', 'time_left_s'), [
    (0.0005, 0.02), (0.001, 0.02), (0.009, 0.012), (0.019, 0.002), (0.03, 0.0)])
def test_a_command_that_went_out_late_leaves_the_next_one_less_time_to_accelerate(
        sent_after_s, time_left_s):
    bench = Bench(max_linear_mps=1.0, max_linear_mps2=2.0)
    bench.send(delta(x=0.1))
    first = bench.tick().linear[0]
    bench.controller.sent(bench.mono_s + sent_after_s)
    assert bench.tick().linear[0] - first == pytest.approx(2.0 * time_left_s)
    # Once: the one after it went out in time.
    before = bench.command.linear[0]
    bench.controller.sent(bench.mono_s)
    assert bench.tick().linear[0] - before == pytest.approx(2.0 * 0.02)


def test_the_steps_of_a_chunk_follow_each_other_at_its_period():
    bench = Bench(max_linear_mps2=50.0, command_timeout_s=1.0)
    bench.send(delta(x=0.02), delta(y=0.02), delta(z=0.02))
    commands = bench.run(0.6)
    assert commands[5].linear == pytest.approx([0.1, 0.0, 0.0])
    assert commands[15].linear == pytest.approx([0.0, 0.1, 0.0])
    assert commands[25].linear == pytest.approx([0.0, 0.0, 0.1])


def test_a_newer_chunk_replaces_the_rest_of_the_older_one():
    bench = Bench(max_linear_mps2=50.0, command_timeout_s=1.0)
    bench.send(*[delta(x=0.02)] * 4)
    bench.run(0.1)
    bench.send(delta(y=0.02))
    command = bench.tick()
    assert command.linear == pytest.approx([0.0, 0.1, 0.0])
    assert command.sequence == 2 and command.first_of_chunk
    assert not bench.tick().first_of_chunk


def test_evenly_late_single_steps_move_without_a_dip():
    bench = Bench(command_timeout_s=0.5, overrun_s=0.1)
    speeds = []
    for pause_s in (0.20, 0.26, 0.22, 0.28, 0.18):
        bench.send(delta(x=0.02))
        speeds += [speed(command) for command in bench.run(pause_s)]
    assert min(speeds[4:]) == pytest.approx(0.1)


def test_a_terminate_step_stops_without_executing_its_motion():
    bench = Bench(max_linear_mps2=50.0, command_timeout_s=2.0)
    bench.send(delta(x=0.02), delta(y=0.04, gripper=1.0), delta(y=0.04),
               terminate=(False, True, False))
    commands = bench.run(0.6)
    assert all(command.linear[1] == 0.0 for command in commands)
    assert all(command.gripper is None for command in commands)
    assert speed(commands[-1]) == 0.0 and commands[-1].state is State.STOPPING


def test_the_gripper_is_told_on_a_change_only_and_with_hysteresis():
    trigger = GripperTrigger(open_above=0.6, close_below=0.4)
    wishes = [0.5, 0.9, 1.0, 0.5, 0.41, 0.39, 0.5, 0.59, 0.61]
    assert [trigger.update(wish) for wish in wishes] == \
        [None, 1.0, None, None, None, 0.0, None, None, 1.0]


def test_the_gripper_command_comes_once_with_the_first_command_of_its_step():
    bench = Bench(command_timeout_s=1.0)
    bench.send(delta(gripper=1.0), delta(gripper=1.0), delta(gripper=0.0))
    grippers = [command.gripper for command in bench.run(0.6)]
    assert [(at, value) for at, value in enumerate(grippers) if value is not None] == \
        [(0, 1.0), (19, 0.0)]


def test_the_pose_target_integrates_the_limited_twist():
    bench = Bench(pose_output=True, overrun_s=0.0)
    commands = bench.run_fed(0.4, delta(x=0.02, rz=0.1)) + bench.run(0.5)
    targets = np.array([command.pose.position for command in commands if command.pose])
    assert targets[-1] == pytest.approx(bench.position, abs=1e-9)
    assert np.linalg.norm(np.diff(targets, axis=0), axis=1).max() <= 0.1 * TICK_S + 1e-9
    # The measured orientation of the bench never turns, so the target leads it.
    turned = rotation.to_rotation_vector(commands[20].pose.quaternion)
    assert turned == pytest.approx(sum(c.angular for c in commands[:21]) * TICK_S)


def test_the_pose_target_leads_a_blocked_robot_by_no_more_than_allowed():
    bench = Bench(pose_output=True, max_lead_m=0.03)
    for number in range(100):
        if number % 10 == 0:
            bench.send(delta(x=0.04))
        bench.command = None
        bench.tick()
    lead = bench.command.pose.position - bench.position
    # Between two measurements the tool is assumed to follow, hence the motion of one tick.
    assert 0.02 < np.linalg.norm(lead) <= 0.03 + 0.25 * TICK_S + 1e-9


def test_no_pose_is_sent_in_twist_mode():
    bench = Bench()
    assert bench.run_fed(0.1)[-1].pose is None


@pytest.mark.parametrize(('position', 'quaternion', 'reason'), [
    ((0.5, 0.0, float('nan')), UNTURNED, Reason.NON_FINITE),
    ((0.5, 0.0), UNTURNED, Reason.WRONG_SHAPE),
    ((0.5, 0.0, 0.3), (0.0, 0.0, 0.0, 0.0), Reason.OUT_OF_RANGE)])
def test_a_malformed_tool_pose_is_refused(position, quaternion, reason):
    bench = Bench()
    assert bench.controller.update_pose(position, quaternion, 1000.0).reason is reason
    assert bench.controller.counters.rejections == {f'pose_{reason.value}': 1}


def test_an_old_pose_is_carried_on_by_the_motion_commanded_since():
    bench = Bench(workspace_max_m=(0.6, 0.4, 0.6), pose_timeout_s=1.0, command_timeout_s=0.5)
    bench.tick()
    bench.pose_known = False
    bench.run_fed(0.8, delta(x=0.04))
    assert 0.59 < bench.position[0] <= 0.6 + 1e-9


def test_the_states_are_those_of_the_message_and_each_has_a_text():
    constants = dict(re.findall(r'^uint8 ([A-Z]+) = (\d+)$', MESSAGE.read_text(), re.MULTILINE))
    assert {state.name: str(state.value) for state in State} == constants
    assert set(STATE_TEXT) == set(State)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'command_timeout_s': 0.0}, 'command_timeout_s: expected 0.02 to 5, found 0.0'),
    ({'max_linear_mps': float('nan')}, 'max_linear_mps: expected 0.0001 to 2, found nan'),
    ({'zero_hold_s': 0.1}, 'zero_hold_s: expected 0.5 to 5, found 0.1'),
    ({'overrun_s': 0.6}, 'overrun_s: expected at most command_timeout_s = 0.5, found 0.6'),
    ({'base_frame': ''}, "base_frame: expected the name of a frame, found ''"),
    ({'workspace_min_m': (0.9, 0.0, 0.0)}, 'workspace_min_m: expected finite and below'),
    ({'workspace_max_m': (0.9, 0.0)}, 'expected 3 numbers x, y, z each, found 3 and 2'),
])
def test_parameters_outside_their_range_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ControlParameters(**changes)


vectors = st.lists(st.floats(-1.8, 1.8), min_size=3, max_size=3).map(np.array)


@settings(max_examples=100, deadline=None)
@given(vectors)
def test_a_rotation_vector_survives_the_way_through_a_quaternion(vector):
    back = rotation.to_rotation_vector(rotation.from_rotation_vector(vector))
    if np.linalg.norm(vector) < np.pi:
        assert back == pytest.approx(vector, abs=1e-9)
    else:
        assert np.linalg.norm(back) <= np.pi + 1e-9
