"""The optional limit on jerk and the optional smoothing: they shape motion and delay no stop."""

from control_bench import Bench
from control_bench import delta
from control_bench import speed
from control_bench import TICK_S
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

JERKY = {'max_linear_mps2': 2.0, 'max_linear_mps3': 20.0, 'max_angular_radps2': 4.0,
         'max_angular_radps3': 40.0, 'command_timeout_s': 1.0, 'workspace_enabled': False}


def accelerations(commands, kind='linear'):
    velocities = np.array([np.zeros(3), *(getattr(command, kind) for command in commands)])
    return np.diff(velocities, axis=0) / TICK_S


def test_without_a_limit_the_acceleration_jumps():
    bench = Bench(**{**JERKY, 'max_linear_mps3': 0.0})
    bench.send(delta(x=0.04))
    assert accelerations(bench.run(0.04))[0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize(('kind', 'row', 'jerk'), [
    ('linear', delta(x=0.04), 20.0), ('linear', delta(x=0.02, y=-0.02), 20.0),
    ('angular', delta(rz=0.2), 40.0)])
def test_jerk_is_limited_on_the_way_to_a_velocity(kind, row, jerk):
    bench = Bench(**JERKY)
    commands = bench.run_fed(0.6, row)
    rates = np.diff([np.zeros(3), *accelerations(commands, kind)], axis=0) / TICK_S
    assert np.linalg.norm(rates, axis=1).max() == pytest.approx(jerk, rel=1e-6)
    wanted = np.array(row[:3] if kind == 'linear' else row[3:6]) / 0.2
    assert getattr(commands[-1], kind) == pytest.approx(wanted, abs=1e-9)


def test_acceleration_stays_limited_and_the_velocity_does_not_overshoot():
    bench = Bench(**JERKY)
    commands = bench.run_fed(0.6, delta(x=0.04))
    assert np.abs(accelerations(commands)).max() <= 2.0 + 1e-9
    assert max(command.linear[0] for command in commands) <= 0.2 + 1e-9
    assert any('linear_jerk' in command.clamps for command in commands)


wishes = st.lists(st.lists(st.floats(-0.01, 0.01), min_size=3, max_size=3), min_size=2,
                  max_size=12)


@settings(max_examples=40, deadline=None)
@given(wishes, st.floats(0.5, 100.0))
def test_jerk_is_limited_whatever_is_wanted_one_after_another(wished, jerk):
    bench = Bench(**{**JERKY, 'max_linear_mps3': jerk, 'max_linear_mps': 2.0})
    commands = []
    for wish in wished:
        bench.send(delta(*wish), period_s=0.05)
        commands += bench.run(3 * TICK_S)
    rates = np.diff([np.zeros(3), *accelerations(commands)], axis=0) / TICK_S
    assert np.linalg.norm(rates, axis=1).max() <= jerk * (1.0 + 1e-6) + 1e-6


def test_a_limited_jerk_is_no_clamped_command():
    bench = Bench(**JERKY)
    bench.run_fed(0.2, delta(x=0.02))
    assert bench.controller.counters.clamps['linear_jerk'] > 0
    assert bench.controller.counters.commands_clamped == 0


@pytest.mark.parametrize('shaping', [{'max_linear_mps3': 1.0}, {'smoothing_s': 1.0}])
def test_a_stop_takes_no_longer_with_shaping(shaping):
    bench = Bench(max_linear_mps2=2.0, command_timeout_s=4.0, **shaping)
    for _ in range(50):
        bench.send(*[delta(x=0.04)] * 2)
        bench.run(TICK_S)
    before = speed(bench.command)
    bench.controller.stop('test')
    speeds = [speed(command) for command in bench.run(0.12)]
    expected = [max(0.0, before - 2.0 * TICK_S * number) for number in range(1, 7)]
    assert before > 0.1 and speeds == pytest.approx(expected, abs=1e-9)


def test_a_motion_after_a_stop_begins_with_no_acceleration_left_over():
    bench = Bench(**JERKY)
    bench.run_fed(0.1, delta(x=0.04))
    bench.controller.stop('test')
    bench.run(0.8)
    bench.send(delta(y=0.04))
    assert speed(bench.tick()) <= 20.0 * TICK_S ** 2 + 1e-12


def test_smoothing_approaches_the_wanted_velocity_with_its_time_constant():
    bench = Bench(max_linear_mps2=50.0, smoothing_s=0.1, command_timeout_s=1.0)
    commands = bench.run_fed(0.5, delta(x=0.02))
    speeds = np.array([speed(command) for command in commands])
    expected = 0.1 * (1.0 - np.exp(-np.arange(1, 26) * TICK_S / 0.1))
    assert speeds == pytest.approx(expected, abs=1e-9)


def test_rule_5_smoothing_remembers_nothing_of_the_motion_before_a_stop():
    bench = Bench(smoothing_s=1.0, command_timeout_s=1.0)
    bench.run_fed(0.5, delta(x=0.04))
    bench.controller.stop('test')
    assert bench.run(0.8)[-1] is None
    bench.send(delta(y=0.04))
    command = bench.tick()
    assert command.linear[0] == 0.0 and command.linear[1] > 0.0


def test_smoothing_makes_less_of_a_wish_that_flickers():
    rough, smooth = (Bench(max_linear_mps2=50.0, smoothing_s=time_s) for time_s in (0.0, 0.2))
    spread = []
    for bench in (rough, smooth):
        values = []
        for number in range(40):
            if number % 2 == 0:
                bench.send(delta(x=0.02 if number % 4 else -0.02))
            values.append(bench.tick().linear[0])
        spread.append(np.ptp(values[20:]))
    assert spread[1] < 0.3 * spread[0]
