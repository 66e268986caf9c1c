"""What was done over a period is the same whatever kind of message says it."""

from collections import Counter

import bag_folders as bags
from bag_folders import SECOND
from bag_folders import START
import numpy as np
import pytest
import recorded_bags as robot

from vla_policy_node.recorded.config import ChunkActions
from vla_policy_node.recorded.config import JointGripper
from vla_policy_node.recorded.config import NumberGripper
from vla_policy_node.recorded.config import PoseActions
from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.recorded.config import TwistActions
from vla_policy_node.recorded.grippers import HeldGripper
from vla_policy_node.recorded.messages import Column
from vla_policy_node.recorded.messages import scan
from vla_policy_node.recorded.motion import build_motion
from vla_policy_node.recorded.motion import PoseMotion
from vla_policy_node.recorded.motion import TwistMotion
from vla_policy_node.recordings import Recording

PERIOD_S = 0.2
HALF = np.sqrt(0.5)


def ns(*seconds: float) -> np.ndarray:
    return START + np.round(np.array(seconds) * SECOND).astype(np.int64)


def column(messages, read, width: int = 1) -> Column:
    """Return the column of messages of `width` numbers, which `read` takes."""
    values = np.array([read(message) for _, _, message in messages], float).reshape(-1, width)
    times = np.array([when for _, when, _ in messages], np.int64)
    return Column(type='', stamped=True, received_ns=times, stamp_ns=times,
                  places=np.arange(len(times)), values=values)


def twists(messages, **config) -> TwistMotion:
    def read(message):
        linear, angular = message.twist.linear, message.twist.angular
        return linear.x, linear.y, linear.z, angular.x, angular.y, angular.z
    return TwistMotion(column(messages, read, 6),
                       TwistActions(kind='twist', topic='/t', **config), max_gap_s=1.0)


def poses(messages, **config) -> PoseMotion:
    def read(message):
        place, turned = message.pose.position, message.pose.orientation
        return place.x, place.y, place.z, turned.x, turned.y, turned.z, turned.w
    return PoseMotion(column(messages, read, 7),
                      PoseActions(kind='pose', topic='/p', **config), max_gap_s=1.0)


def over(motion, *seconds: float) -> np.ndarray:
    return motion.over(ns(*seconds), PERIOD_S)[:, :6].round(9)


def test_a_steady_velocity_makes_its_way_in_a_period() -> None:
    motion = twists([robot.twist(0.05 * n, (0.1, 0, -0.2), (0, 0, 0.5)) for n in range(20)])
    assert over(motion, 0.3).tolist() == [[0.02, 0.0, -0.04, 0.0, 0.0, 0.1]]


def test_a_velocity_counts_from_its_stamp_to_the_next_one() -> None:
    motion = twists([robot.twist(0.0, (1, 0, 0)), robot.twist(0.15, (0, 1, 0)),
                     robot.twist(0.3, (0, 0, 0))])
    assert over(motion, 0.0)[0, :3].tolist() == [0.15, 0.05, 0.0]


def test_a_velocity_without_another_ends_in_standstill() -> None:
    motion = twists([robot.twist(0.0, (1, 0, 0)), robot.twist(0.8, (1, 0, 0))], hold_s=0.1)
    assert over(motion, 0.0, 0.4)[:, 0].tolist() == [0.1, 0.0]


def test_nothing_is_known_before_the_first_velocity_and_across_a_long_pause() -> None:
    motion = twists([robot.twist(1.0, (1, 0, 0)), robot.twist(3.0, (1, 0, 0))])
    assert np.isnan(over(motion, 0.9, 2.5, 2.9, 3.2)).all(axis=1).tolist() == [True] * 4
    assert np.isfinite(over(motion, 1.0, 1.5)).all()


def test_rotations_follow_one_another_about_fixed_axes() -> None:
    quarter = np.pi / 2 / 0.1
    motion = twists([robot.twist(0.0, angular=(quarter, 0, 0)),
                     robot.twist(0.1, angular=(0, 0, quarter)), robot.twist(0.2)])
    third = 2 * np.pi / 3 / np.sqrt(3)
    assert over(motion, 0.0)[0, 3:] == pytest.approx([third, third, third])


def test_units_scale_and_signs_of_axes_are_applied() -> None:
    motion = twists(
        [robot.twist(0.0, (100, 0, 0), (0, 0, 90)), robot.twist(0.2)],
        linear={'unit': 'mm', 'axes': ('-y', 'x', 'z'), 'scale': 2.0},
        angular={'unit': 'deg', 'axes': ('x', 'y', '-z')})
    assert over(motion, 0.0)[0] == pytest.approx([0, 0.04, 0, 0, 0, -0.1 * np.pi])


def test_a_velocity_that_is_not_finite_spoils_only_the_periods_it_is_part_of() -> None:
    messages = [robot.twist(0.1 * n, (1, 0, 0)) for n in range(10)]
    messages[4] = robot.twist(0.4, (np.nan, 0, 0))
    known = np.isfinite(over(twists(messages), 0.0, 0.1, 0.25, 0.45, 0.5)[:, 0])
    assert known.tolist() == [True, True, False, False, True]


def test_many_velocities_chain_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    angular = rng.normal(size=(37, 3))
    motion = twists([robot.twist(0.01 * n, angular=rate) for n, rate in enumerate(angular)])
    turned = np.eye(3)
    for rate in angular[:-1]:
        angle = 0.01 * np.linalg.norm(rate)
        x, y, z = rate / np.linalg.norm(rate)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turned = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ turned
    vector = motion.over(ns(0.0), 0.36)[0, 3:6]
    angle = np.linalg.norm(vector)
    assert 1 + 2 * np.cos(angle) == pytest.approx(np.trace(turned))
    assert turned @ vector == pytest.approx(vector)


def test_poses_are_interpolated_between_their_stamps() -> None:
    motion = poses([robot.pose(0.0), robot.pose(0.4, (0.4, 0, 0), (0, 0, HALF, HALF))])
    assert over(motion, 0.1)[0] == pytest.approx([0.2, 0, 0, 0, 0, np.pi / 4])


def test_a_difference_of_poses_is_given_in_the_axes_of_the_base_or_the_tool() -> None:
    turned = (0, 0, HALF, HALF)       # a quarter turn about z: the tool's x is the base's y
    messages = [robot.pose(0.0, (0, 0, 0), turned), robot.pose(0.2, (0, 0.1, 0), turned)]
    assert over(poses(messages), 0.0)[0, :3] == pytest.approx([0, 0.1, 0])
    assert over(poses(messages, expressed_in='tool'), 0.0)[0, :3] == pytest.approx([0.1, 0, 0])


def test_a_turn_is_given_in_the_axes_of_the_base_or_the_tool() -> None:
    # First a quarter about z, then an eighth about the base's x, which is the tool's -y.
    eighth = np.array([np.sin(np.pi / 8), 0, 0, np.cos(np.pi / 8)])
    after = (eighth[0] * HALF, -eighth[0] * HALF, eighth[3] * HALF, eighth[3] * HALF)
    messages = [robot.pose(0.0, turned=(0, 0, HALF, HALF)), robot.pose(0.2, turned=after)]
    assert over(poses(messages), 0.0)[0, 3:] == pytest.approx([np.pi / 4, 0, 0])
    assert over(poses(messages, expressed_in='tool'), 0.0)[0, 3:] == pytest.approx(
        [0, -np.pi / 4, 0])


def test_poses_are_known_from_the_first_to_the_last_and_not_across_pauses() -> None:
    motion = poses([robot.pose(at) for at in (1.0, 1.5, 3.0, 3.5)])
    known = np.isfinite(over(motion, 0.9, 1.0, 1.3, 1.4, 2.0, 3.3, 3.4)[:, 0])
    assert known.tolist() == [False, True, True, False, False, True, False]


@pytest.mark.parametrize('odd', [(0, 0, 0, 0), (np.nan, 0, 0, 1), (0, 0, 0, 2)])
def test_a_rotation_that_is_none_spoils_the_poses_beside_it(odd) -> None:
    messages = [robot.pose(0.1 * n, (n, 0, 0)) for n in range(10)]
    messages[5] = robot.pose(0.5, (5, 0, 0), odd)
    known = np.isfinite(over(poses(messages), 0.1, 0.2, 0.25, 0.45, 0.6)[:, 0])
    assert known.tolist() == [True, True, False, False, True]


def chunk_motion(tmp_path, messages, skipped=None):
    config = RecordedConfig(cameras={'primary': bags.CAMERA}, actions=ChunkActions(kind='chunk'))
    path = bags.write(tmp_path / 'bag', [bags.image(0.0, 1), *messages])
    with Recording(path) as recording:
        columns = scan(recording, config, Counter())
    return build_motion(columns[bags.CHUNKS], config, PERIOD_S,
                        Counter() if skipped is None else skipped)


def test_the_action_of_a_time_is_the_nearest_step_at_most_half_a_period_away(tmp_path) -> None:
    motion = chunk_motion(tmp_path, [
        bags.chunk(0.3 + 0.2 * n, [[n, 0, 0, 0, 0, 0, 1]], observed_s=0.2 + 0.2 * n)
        for n in range(3)])
    found = motion.over(ns(0.09, 0.11, 0.2, 0.29, 0.31, 0.6, 0.71), PERIOD_S)[:, 0]
    assert found.tolist()[1:-1] == [0, 0, 0, 1, 2]
    assert np.isnan(found[[0, -1]]).all()


def test_of_a_chunk_those_steps_count_that_began_before_the_next_one(tmp_path) -> None:
    rows = [[n, 0, 0, 0, 0, 0, 1] for n in range(4)]
    motion = chunk_motion(tmp_path, [bags.chunk(0.0, rows), bags.chunk(0.4, [[9] + rows[0][1:]])])
    assert motion.over(ns(0.0, 0.2, 0.4), PERIOD_S)[:, 0].tolist() == [0, 1, 9]
    assert np.isnan(motion.over(ns(0.6), PERIOD_S)).all()


def test_a_step_that_terminates_does_not_move(tmp_path) -> None:
    motion = chunk_motion(tmp_path, [bags.chunk(0.0, [[1, 1, 1, 1, 1, 1, 0.3]], terminate=True)])
    assert motion.over(ns(0.0), PERIOD_S).tolist() == [[0, 0, 0, 0, 0, 0, 0.3]]
    assert motion.ends_ns.tolist() == ns(0.1).tolist()


def test_chunks_of_another_period_are_counted_and_left_out(tmp_path) -> None:
    skipped = Counter()
    motion = chunk_motion(tmp_path, [bags.chunk(0.0, [[1] * 7], period_s=0.1)], skipped)
    assert np.isnan(motion.over(ns(0.0), PERIOD_S)).all()
    assert skipped == {'chunk of deltas of 0.1 s, the policy acts in steps of 0.2 s': 1}


def test_a_chunk_that_is_not_finite_is_not_known(tmp_path) -> None:
    motion = chunk_motion(tmp_path, [bags.chunk(0.0, [[np.inf, 0, 0, 0, 0, 0, 1]])])
    assert np.isnan(motion.over(ns(0.0), PERIOD_S)).all()


def test_a_gripper_keeps_its_last_command_and_is_unknown_before_the_first() -> None:
    commands = column([robot.number(1.0, 40.0), robot.number(2.0, 10.0)], lambda m: (m.data,))
    config = {'kind': 'float64', 'topic': '/g', 'closed': 0.0, 'open': 40.0}
    gripper = HeldGripper(commands, NumberGripper(**config))
    assert gripper.at(ns(1.0, 1.9, 2.0, 500.0)).tolist() == [1.0, 1.0, 0.25, 0.25]
    assert np.isnan(gripper.at(ns(0.9))).all()
    assert HeldGripper(commands, NumberGripper(**config, initial=0.5)).at(ns(0.9)) == 0.5


def test_a_gripper_that_closes_upwards_is_turned_and_kept_within_its_ends() -> None:
    positions = column([robot.number(0.0, 0.8), robot.number(1.0, -0.1), robot.number(2, np.nan)],
                       lambda m: (m.data,))
    gripper = HeldGripper(positions, JointGripper(
        kind='joint_state', topic='/j', joints=('a',), closed=0.8, open=0.0))
    assert gripper.at(ns(0.0, 1.0)).tolist() == [0.0, 1.0]
    assert np.isnan(gripper.at(ns(2.0))).all()


def test_without_any_message_nothing_is_known(tmp_path) -> None:
    assert np.isnan(over(twists([]), 0.0)).all()
    assert np.isnan(over(poses([]), 0.0)).all()
    assert np.isnan(over(poses([robot.pose(0.0)]), 0.0)).all()
    assert np.isnan(chunk_motion(tmp_path, [bags.chunk(0.0, [])]).over(ns(0.0), PERIOD_S)).all()
    empty = column([], lambda m: (m.data,))
    for motion in (twists([]), poses([])):
        assert motion.ends_ns.tolist() == []
    gripper = HeldGripper(empty, NumberGripper(kind='float64', topic='/g'))
    assert np.isnan(gripper.at(ns(0.0))).all()
