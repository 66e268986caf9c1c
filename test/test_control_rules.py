"""The rules of motion, one by one. Each test carries the number and words of its rule."""

from control_bench import Bench
from control_bench import delta
from control_bench import PERIOD_S
from control_bench import speed
from control_bench import TICK_S
from control_bench import UNTURNED
import numpy as np
import pytest

from vla_policy_node.control import Reason
from vla_policy_node.control import State


def reason_of(rejection):
    return rejection.reason if rejection else None


def test_rule_1_an_action_that_is_non_finite_is_rejected_counted_and_named():
    bench = Bench()
    rejection = bench.send(delta(y=float('nan')))
    assert str(rejection) == 'non_finite: expected finite deltas, found nan in step 0, dimension 1'
    counters = bench.controller.counters
    assert (counters.received, counters.accepted, counters.rejected) == (1, 0, 1)
    assert counters.rejections == {'non_finite': 1}
    assert counters.last_rejection == str(rejection)


@pytest.mark.parametrize('deltas', [
    np.zeros((0, 7)), np.zeros((1, 6)), np.zeros((1, 8)), np.zeros(7), np.zeros((65, 7)),
    np.zeros((1, 1, 7))])
def test_rule_1_an_action_of_wrong_length_is_rejected(deltas):
    bench = Bench()
    assert reason_of(bench.send(deltas=deltas)) is Reason.WRONG_SHAPE


def test_rule_1_an_action_from_an_unknown_frame_is_rejected():
    rejection = Bench().send(frame='tool0')
    assert str(rejection) == \
        "unknown_frame: expected deltas in frame 'base', found 'tool0'"


def test_rule_1_a_frame_may_have_another_name_in_actions_and_then_only_that_one():
    bench = Bench(base_frame='base_link', action_frame='base')
    assert bench.send(frame='base') is None
    assert reason_of(bench.send(frame='base_link')) is Reason.UNKNOWN_FRAME


def test_rule_1_an_action_older_than_the_timeout_by_its_observation_stamp_is_rejected():
    bench = Bench(command_timeout_s=0.3)
    assert bench.send(observation_stamp_s=bench.ros_s - 0.29) is None
    rejection = bench.send(observation_stamp_s=bench.ros_s - 0.31)
    assert str(rejection) == \
        'stale_observation: expected an observation at most 0.3 s old, found 0.310 s'


def test_rule_1_an_action_older_than_the_timeout_by_receipt_is_rejected():
    bench = Bench(command_timeout_s=0.3)
    assert reason_of(bench.send(received_mono_s=bench.mono_s - 0.31)) is Reason.STALE_RECEIPT
    assert bench.send(received_mono_s=bench.mono_s - 0.29) is None


def test_rule_1_an_action_stamped_in_the_future_beyond_the_skew_is_rejected():
    bench = Bench(max_clock_skew_s=0.05)
    rejection = bench.send(observation_stamp_s=bench.ros_s + 0.06)
    assert reason_of(rejection) is Reason.FUTURE_STAMP
    assert bench.send(observation_stamp_s=bench.ros_s + 0.04) is None


def test_rule_1_an_action_with_a_zero_stamp_is_rejected():
    assert reason_of(Bench().send(observation_stamp_s=0.0)) is Reason.ZERO_STAMP


def test_rule_1_an_action_out_of_order_is_rejected():
    bench = Bench()
    assert bench.send(sequence=7) is None
    bench.tick()
    assert reason_of(bench.send(sequence=7)) is Reason.OUT_OF_ORDER
    assert reason_of(bench.send(sequence=6)) is Reason.OUT_OF_ORDER
    earlier_s = bench.ros_s - 2 * TICK_S
    assert reason_of(bench.send(sequence=8, observation_stamp_s=earlier_s)) is Reason.OUT_OF_ORDER
    assert bench.send(sequence=8) is None


def test_rule_1_a_publisher_whose_name_is_not_known_for_a_while_is_still_the_same():
    bench = Bench()
    bench.tick()
    assert bench.send(publisher='01f7', publisher_name='/policy') is None
    bench.tick()
    assert bench.send(publisher='01f7', publisher_name='_UNKNOWN_') is None
    bench.tick()
    rejection = bench.send(publisher='02aa', publisher_name='/policy')
    assert reason_of(rejection) is Reason.SECOND_PUBLISHER
    assert "expected publisher '_UNKNOWN_ 01f7', found '/policy 02aa'" in str(rejection)


def test_rule_1_an_action_from_a_second_publisher_is_rejected_until_enabled_again():
    bench = Bench()
    bench.tick()
    assert bench.send(publisher='policy') is None
    bench.tick()
    assert reason_of(bench.send(publisher='rogue')) is Reason.SECOND_PUBLISHER
    assert reason_of(bench.send(publisher_count=2)) is Reason.SECOND_PUBLISHER
    bench.controller.set_enabled(True)
    assert bench.send(publisher='restarted policy', sequence=1) is None


@pytest.mark.parametrize('period_s', [0.0, -0.2, float('nan'), float('inf'), 0.001, 60.0])
def test_rule_1_an_action_with_an_absurd_period_is_rejected(period_s):
    assert reason_of(Bench().send(period_s=period_s)) is Reason.BAD_PERIOD


@pytest.mark.parametrize('row', [delta(x=1e308), delta(rz=1e308), delta(gripper=1e308),
                                 delta(y=-1.5), delta(ry=4.0)])
def test_rule_1_an_action_of_absurd_size_is_rejected(row):
    assert reason_of(Bench().send(row)) is Reason.OUT_OF_RANGE


def test_rule_1_a_rejected_action_neither_moves_nor_replaces_the_running_one():
    bench = Bench()
    bench.send(delta(x=0.02))
    bench.run(0.1)
    bench.send(delta(x=float('inf')))
    assert bench.tick().linear == pytest.approx([0.1, 0.0, 0.0])
    assert bench.command.sequence == 1


def test_rule_2_without_a_fresh_action_it_ramps_to_zero_sends_zeros_for_half_a_second_then_none():
    bench = Bench(max_linear_mps2=2.0, command_timeout_s=0.3)
    bench.send(delta(x=0.04))
    moving = bench.run(0.3)
    assert speed(moving[-2]) == pytest.approx(0.2)
    after = bench.run(1.0)
    speeds = [speed(command) for command in after if command]
    assert speeds[:5] == pytest.approx([0.12, 0.08, 0.04, 0.0, 0.0], abs=1e-6)
    zeros = [value for value in speeds if value == 0.0]
    assert 0.5 <= len(zeros) * TICK_S <= 0.56
    assert after[-1] is None and bench.controller.silent
    assert bench.controller.state is State.WAITING
    assert bench.controller.counters.watchdog_stops == 1


def test_rule_2_the_timeout_counts_from_the_observation_however_late_it_arrived():
    bench = Bench(command_timeout_s=0.3, max_linear_mps2=50.0)
    bench.send(delta(x=0.04), observation_stamp_s=bench.ros_s - 0.25)
    speeds = [speed(command) for command in bench.run(0.12)]
    assert speeds == pytest.approx([0.2, 0.2, 0.0, 0.0, 0.0, 0.0])


def test_rule_2_the_timeout_counts_from_receipt_when_the_ros_clock_stands_still():
    bench = Bench(command_timeout_s=0.3, clock_timeout_s=5.0)
    bench.send(*[delta(x=0.04)] * 10)
    bench.controller.update_pose(bench.position, UNTURNED, bench.ros_s)
    speeds = []
    for _ in range(22):
        bench.mono_s += TICK_S
        bench.command = bench.controller.tick(bench.ros_s, bench.mono_s)
        speeds.append(speed(bench.command))
    assert speeds[13] == pytest.approx(0.2) and speeds[-1] == 0.0
    assert bench.command.state is State.STOPPING


def test_rule_2_a_chunk_longer_than_the_timeout_ends_at_the_timeout():
    bench = Bench(command_timeout_s=0.5)
    bench.send(*[delta(x=0.02)] * 20)
    commands = bench.run(0.8)
    assert commands[23].state is State.MOVING
    assert commands[26].state is State.STOPPING


@pytest.mark.parametrize('end', [
    lambda controller: controller.stop('cancelled'),
    lambda controller: controller.set_enabled(False),
    lambda controller: controller.fault('exception')])
def test_rule_2_the_same_stop_happens_on_cancel_deactivation_exception_and_shutdown(end):
    bench = Bench(max_linear_mps2=2.0)
    bench.run_fed(0.2, delta(x=0.04))
    end(bench.controller)
    after = bench.run(0.8)
    speeds = [speed(command) for command in after if command]
    assert speeds[:6] == pytest.approx([0.16, 0.12, 0.08, 0.04, 0.0, 0.0], abs=1e-6)
    assert 0.5 <= (len(speeds) - 4) * TICK_S <= 0.56
    assert after[-1] is None


def test_rule_2_a_heartbeat_never_counts_as_an_action():
    bench = Bench(command_timeout_s=0.3)
    bench.send(delta(x=0.04))
    # The publisher is alive and repeats what it has: same frame, new sequence.
    seen_s = bench.ros_s
    for _ in range(20):
        bench.tick()
        bench.send(delta(x=0.04), observation_stamp_s=seen_s)
    assert bench.command.state is State.STOPPING
    assert bench.controller.counters.accepted == 1


def test_rule_2_a_late_chunk_is_bridged_for_overrun_then_ramped_down():
    bench = Bench(overrun_s=0.06, command_timeout_s=1.0)
    bench.send(delta(x=0.02))
    speeds = [speed(command) for command in bench.run(0.4)]
    assert speeds[9] == speeds[11] == pytest.approx(0.1)
    assert speeds[14] < 0.1 and speeds[18] == 0.0
    bench.send(delta(x=0.02))
    assert bench.tick().state is State.MOVING


def test_rule_3_linear_and_angular_speed_are_clamped_separately_and_keep_direction():
    bench = Bench(max_linear_mps=0.1, max_angular_radps=0.5, max_linear_mps2=50.0,
                  max_angular_radps2=200.0)
    bench.send(delta(x=0.03, y=0.04, rz=-0.2))
    command = bench.run(0.1)[-1]
    assert command.linear == pytest.approx([0.06, 0.08, 0.0])
    assert command.angular == pytest.approx([0.0, 0.0, -0.5])
    assert command.clamps == ('linear_speed', 'angular_speed')


def test_rule_3_the_displacement_of_a_command_is_clamped_and_keeps_direction():
    bench = Bench(max_delta_m=0.01, max_delta_rad=0.05, max_linear_mps2=50.0,
                  max_angular_radps2=200.0)
    bench.send(delta(x=0.3, z=-0.4, rx=1.0))
    command = bench.run(0.1)[-1]
    assert command.linear * PERIOD_S == pytest.approx([0.006, 0.0, -0.008])
    assert command.angular * PERIOD_S == pytest.approx([0.05, 0.0, 0.0])
    assert command.clamps == ('linear_displacement', 'angular_displacement')


def test_rule_3_acceleration_is_limited_on_the_way_up_and_down():
    bench = Bench(max_linear_mps2=1.0, max_angular_radps2=2.0)
    commands = bench.run_fed(0.4, delta(x=0.04, rz=0.2)) + bench.run(0.6)
    linear = np.array([command.linear for command in commands])
    angular = np.array([command.angular for command in commands])
    assert np.abs(np.diff(linear, axis=0)).max() == pytest.approx(1.0 * TICK_S)
    assert np.abs(np.diff(angular, axis=0)).max() == pytest.approx(2.0 * TICK_S)
    assert 'linear_acceleration' in commands[0].clamps


def test_rule_3_the_tool_stops_at_the_face_of_the_workspace_and_can_return():
    bench = Bench(workspace_max_m=(0.55, 0.4, 0.6))
    commands = bench.run_fed(1.0, delta(x=0.04))
    assert 0.54 < bench.position[0] <= 0.55
    assert 'workspace' in commands[-1].clamps
    bench.run_fed(0.4, delta(x=-0.04))
    assert bench.position[0] < 0.51


def test_rule_3_the_workspace_shortens_the_motion_along_its_direction():
    bench = Bench(workspace_max_m=(0.52, 0.4, 0.6), max_linear_mps2=50.0)
    bench.run_fed(1.0, delta(x=0.02, y=0.02))
    assert bench.position == pytest.approx([0.52, 0.02, 0.3], abs=2e-3)


def test_rule_3_a_tool_outside_the_workspace_may_only_come_back():
    bench = Bench(position=(0.9, 0.0, 0.3))
    bench.run_fed(0.4, delta(x=0.04))
    assert bench.position[0] == pytest.approx(0.9)
    bench.run_fed(0.4, delta(x=-0.04))
    assert bench.position[0] < 0.85


def test_rule_3_without_a_known_pose_the_workspace_means_hold():
    bench = Bench()
    bench.pose_known = False
    command = bench.run_fed(0.1, delta(x=0.04, gripper=1.0))[-1]
    assert speed(command) == 0.0 and command.gripper is None
    assert command.state is State.HOLDING and command.clamps == ('no_pose',)


def test_rule_3_a_pose_that_stops_coming_means_hold():
    bench = Bench(pose_timeout_s=0.2)
    bench.run_fed(0.2, delta(x=0.02))
    bench.pose_known = False
    assert bench.run_fed(0.4, delta(x=0.02))[-1].state is State.HOLDING
    bench.pose_known = True
    assert bench.run_fed(0.1, delta(x=0.02))[-1].state is State.MOVING


def test_rule_3_clamps_are_counted_by_name():
    bench = Bench(max_linear_mps=0.1, max_linear_mps2=50.0)
    bench.run_fed(0.2, delta(x=0.04))
    counters = bench.controller.counters
    assert counters.commands == 10 and counters.commands_clamped == 10
    assert counters.clamps['linear_speed'] == 10 and counters.last_clamp == 'linear_speed'


def test_rule_4_a_failed_decode_sends_no_chunk_and_the_controller_holds():
    bench = Bench()
    bench.run_fed(0.4, delta(x=0.04))
    commands = bench.run(1.5)
    assert commands[-1] is None
    rest = bench.position.copy()
    bench.run(0.2)
    assert bench.position == pytest.approx(rest)


def test_rule_4_an_empty_chunk_is_not_taken_for_a_zero_action():
    bench = Bench()
    assert reason_of(bench.send(deltas=np.zeros((0, 7)))) is Reason.WRONG_SHAPE
    assert bench.tick() is None


def test_rule_5_the_rest_of_a_chunk_is_dropped_by_a_stop():
    bench = Bench(command_timeout_s=2.0)
    bench.send(*[delta(x=0.02)] * 8)
    bench.run(0.3)
    bench.controller.stop('cancelled')
    assert bench.run(1.0)[-1] is None


def test_rule_5_nothing_is_replayed_after_disabling_and_enabling():
    bench = Bench(command_timeout_s=2.0)
    bench.send(*[delta(x=0.02)] * 8)
    bench.run(0.3)
    bench.controller.set_enabled(False)
    bench.run(0.1)
    bench.controller.set_enabled(True)
    assert bench.run(0.8)[-1] is None


def test_rule_5_a_chunk_observed_before_the_stop_is_refused():
    bench = Bench()
    bench.run(0.2)
    seen_s = bench.ros_s
    bench.run(0.1)
    bench.controller.stop('cancelled')
    refused = bench.send(observation_stamp_s=seen_s)
    assert reason_of(refused) is Reason.BEFORE_STOP
    assert 'found one from 0.1000 s before it' in refused.message
    bench.run(0.02)
    assert bench.send() is None


def test_rule_5_time_lost_in_a_stalled_process_is_not_made_up():
    bench = Bench(command_timeout_s=0.3)
    bench.send(*[delta(x=0.04)] * 8)
    bench.run(0.1)
    bench.command = None
    assert speed(bench.tick(dt_s=2.0)) == 0.0


def test_nothing_moves_until_enabled():
    bench = Bench(enabled=False)
    assert reason_of(bench.send()) is Reason.NOT_ENABLED
    assert bench.tick() is None
    assert bench.controller.state is State.DISABLED


def test_a_fault_lasts_until_enabled_again():
    bench = Bench()
    bench.run_fed(0.1)
    bench.controller.fault('exception in the timer')
    assert bench.tick().state is State.FAULT
    bench.run(1.0)
    assert reason_of(bench.send()) is Reason.NOT_ENABLED
    assert bench.controller.state is State.FAULT
    assert 'exception in the timer' in bench.controller.state_text
    bench.controller.set_enabled(True)
    assert bench.controller.state is State.WAITING and bench.send() is None


def test_a_clock_set_back_stops_and_recovers_with_the_next_chunk():
    bench = Bench()
    bench.run_fed(0.3, delta(x=0.02))
    bench.ros_s -= 3600.0
    stopping = bench.tick()
    assert stopping.state is State.STOPPING
    assert bench.controller.counters.clock_rewinds == 1
    bench.run(0.1)
    assert bench.send(delta(x=0.02)) is None
    assert bench.tick().state is State.MOVING


def test_a_clock_set_forward_stops_and_recovers_with_the_next_chunk():
    bench = Bench()
    bench.run_fed(0.1, delta(x=0.02))
    bench.ros_s += 3600.0
    assert bench.tick().state is State.STOPPING
    assert bench.send(delta(x=0.02)) is None
    assert bench.tick().state is State.MOVING
