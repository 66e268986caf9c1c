"""Emergency stop, deadman switch and the ROS clock: what keeps the controller from moving."""

from control_bench import Bench
from control_bench import delta
from control_bench import speed
from control_bench import TICK_S
import pytest

from vla_policy_node.control import Reason
from vla_policy_node.control import State


def moving_bench(**parameters):
    bench = Bench(max_linear_mps2=2.0, **parameters)
    if parameters.get('deadman'):
        bench.hold_deadman()
    bench.run_fed(0.2, delta(x=0.04))
    assert speed(bench.command) == pytest.approx(0.2)
    return bench


def moves_again(bench):
    """Offer fresh actions for a while; tell whether one of them moves the tool."""
    for _ in range(10):
        bench.send(delta(x=0.04))
        if speed(bench.tick() or bench.tick()) > 0.0:
            return True
    return False


def refuses_to_move(bench):
    """Offer fresh actions for a while; tell whether all of them leave the tool at rest."""
    commands = []
    for _ in range(100):
        bench.send(delta(x=0.04))
        commands.append(bench.tick())
    return not any(speed(command) for command in commands[10:] if command is not None)


# Emergency stop


def test_an_emergency_stop_ramps_to_zero_sends_zeros_and_falls_silent():
    bench = moving_bench()
    bench.controller.emergency_stop('~/stop was called')
    after = bench.run(0.8)
    speeds = [speed(command) for command in after if command]
    assert speeds[:6] == pytest.approx([0.16, 0.12, 0.08, 0.04, 0.0, 0.0], abs=1e-6)
    assert 0.5 <= (len(speeds) - 4) * TICK_S <= 0.56
    assert after[-1] is None and bench.controller.state is State.FAULT
    assert 'emergency stop: ~/stop was called' in bench.controller.state_text


def test_an_emergency_stop_is_only_left_by_enabling():
    bench = moving_bench()
    bench.controller.emergency_stop('test')
    assert refuses_to_move(bench)
    bench.controller.set_enabled(False)
    assert refuses_to_move(bench)
    assert bench.controller.state is State.FAULT
    assert 'emergency stop: test' in bench.controller.state_text
    assert bench.controller.set_enabled(True) == ''
    assert bench.controller.state is State.WAITING
    bench.run(TICK_S)
    assert moves_again(bench)


def test_an_emergency_stop_before_the_first_enabling_is_one_too():
    bench = Bench(enabled=False)
    bench.controller.emergency_stop('test')
    assert bench.controller.state is State.FAULT
    assert bench.tick() is None and bench.controller.state is State.FAULT


def test_a_pressed_stop_refuses_enabling_until_it_is_released():
    bench = moving_bench()
    bench.controller.press_stop(True)
    refusal = bench.controller.set_enabled(True)
    assert refusal.startswith('the emergency stop is pressed') and not bench.controller.enabled
    assert refuses_to_move(bench)
    bench.controller.press_stop(False)
    assert refuses_to_move(bench) and bench.controller.state is State.FAULT
    assert bench.controller.set_enabled(True) == ''
    bench.run(TICK_S)
    assert moves_again(bench)


def test_a_stop_that_stays_pressed_counts_once():
    bench = Bench()
    for pressed in (True, True, False, False, True):
        bench.controller.press_stop(pressed)
    assert bench.controller.counters.emergency_stops == 2


def test_releasing_a_stop_that_was_not_pressed_changes_nothing():
    bench = moving_bench()
    bench.controller.press_stop(False)
    assert bench.tick().state is State.MOVING


# Deadman switch


def test_nothing_moves_before_the_deadman_switch_is_held():
    bench = Bench(deadman=True)
    assert bench.send(delta(x=0.04)).reason is Reason.DEADMAN_RELEASED
    assert bench.tick() is None
    bench.hold_deadman()
    assert moves_again(bench)


def test_motion_ends_when_signs_of_the_deadman_switch_stop_arriving():
    bench = moving_bench(deadman=True, deadman_timeout_s=0.29)
    bench.hold_deadman()
    states = []
    for number in range(20):
        if number % 5 == 0:
            bench.send(delta(x=0.04))
        states.append(bench.tick().state)
    assert states[13] is State.MOVING and states[14] is State.STOPPING
    assert bench.controller.counters.deadman_stops == 1
    assert 'deadman' in bench.controller.state_text


def test_letting_go_of_the_deadman_switch_stops_at_once():
    bench = moving_bench(deadman=True)
    bench.hold_deadman(False)
    assert bench.tick().state is State.STOPPING


def test_the_deadman_switch_held_again_resumes_with_a_fresh_action_only():
    bench = moving_bench(deadman=True, deadman_timeout_s=0.3)
    seen_s = bench.ros_s
    bench.run(0.02)
    bench.hold_deadman(False)
    bench.run(0.2)
    bench.hold_deadman()
    assert bench.run(0.1)[-1].state is State.STOPPING
    rejection = bench.send(delta(x=0.04), observation_stamp_s=seen_s + 0.01)
    assert rejection.reason is Reason.BEFORE_STOP
    assert moves_again(bench)


def test_the_deadman_switch_does_not_replace_enabling():
    bench = Bench(deadman=True, enabled=False)
    bench.hold_deadman()
    assert bench.send(delta(x=0.04)).reason is Reason.NOT_ENABLED


def test_without_a_deadman_switch_none_is_asked_for():
    bench = moving_bench()
    bench.hold_deadman(False)
    assert bench.tick().state is State.MOVING


# The ROS clock


def test_nothing_moves_while_the_ros_clock_stands_still():
    bench = moving_bench(clock_timeout_s=0.09, command_timeout_s=1.0)
    bench.send(*[delta(x=0.04)] * 5)
    bench.clock_runs = False
    states = [command.state for command in bench.run(0.2)]
    assert states[3] is State.MOVING and states[4] is State.STOPPING
    assert bench.controller.counters.clock_stalls == 1
    bench.run(0.6)
    rejection = bench.send(delta(x=0.04), observation_stamp_s=bench.ros_s + 0.01)
    assert rejection.reason is Reason.CLOCK_STOPPED
    assert bench.tick() is None


def test_a_ros_clock_that_goes_on_moves_the_tool_with_a_fresh_action_only():
    bench = moving_bench(clock_timeout_s=0.1)
    bench.clock_runs = False
    bench.run(1.0)
    bench.clock_runs = True
    assert bench.run(0.1)[-1] is None
    assert moves_again(bench)


def test_enabling_is_refused_while_the_ros_clock_stands_still():
    bench = Bench(enabled=False, clock_timeout_s=0.1)
    bench.clock_runs = False
    bench.run(0.2)
    assert '/clock' in bench.controller.set_enabled(True)
    assert not bench.controller.enabled and bench.controller.state is State.DISABLED
    bench.clock_runs = True
    bench.tick()
    assert bench.controller.set_enabled(True) == ''


def test_a_slow_ros_clock_is_not_one_that_stands_still():
    bench = moving_bench(clock_timeout_s=0.1)
    for _ in range(20):
        bench.mono_s += TICK_S
        bench.ros_s += 0.001
        assert bench.controller.accept(bench.chunk(), bench.ros_s, bench.mono_s) is None
        assert bench.controller.tick(bench.ros_s, bench.mono_s).state is State.MOVING


def test_a_process_that_slept_does_not_take_the_ros_clock_for_stopped():
    bench = moving_bench(clock_timeout_s=0.1)
    bench.tick(dt_s=5.0)
    assert bench.send(delta(x=0.04)) is None
    assert bench.controller.counters.clock_stalls == 0


@pytest.mark.parametrize('jump_s', [-3600.0, -10.0, 10.0, 3600.0])
def test_a_clock_that_jumps_stops_and_the_next_action_moves_again(jump_s):
    bench = moving_bench()
    bench.ros_s += jump_s
    assert bench.tick().state is State.STOPPING
    bench.run(0.3)
    assert moves_again(bench)


def test_the_memory_of_motion_does_not_grow_while_the_ros_clock_stands_still():
    bench = moving_bench()
    bench.clock_runs = False
    bench.run(20.0)
    assert len(bench.controller._tracker._history) < 50


# Publishers


def test_rule_1_a_second_publisher_stops_the_motion_and_is_named():
    bench = moving_bench()
    rejection = bench.send(delta(x=0.04), publisher='/policy_node, /rogue', publisher_count=2)
    assert str(rejection) == ('second_publisher: expected one publisher of actions, found 2 '
                              '(/policy_node, /rogue): stop all but one, or wait some seconds '
                              'where one was killed')
    assert bench.tick().state is State.STOPPING
    assert '/rogue' in bench.controller.state_text
