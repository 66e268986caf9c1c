"""Random chunks, rates and clocks against an oracle on the output of the controller."""

from control_bench import Bench
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np

from vla_policy_node.control import State

TOLERANCE = 1e-9
QUICK = settings(max_examples=60, deadline=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

sizes = st.one_of(st.floats(-0.06, 0.06), st.floats(-1.0, 1.0), st.sampled_from([0.0, 5e-324]))
rows = st.tuples(*[sizes] * 6, st.floats(-1.0, 2.0)).map(list)
parameters = st.fixed_dictionaries({
    'command_period_s': st.floats(0.005, 0.03),
    'command_timeout_s': st.floats(0.2, 1.0),
    'max_linear_mps': st.floats(0.02, 1.0),
    'max_angular_radps': st.floats(0.05, 3.0),
    'max_linear_mps2': st.floats(0.1, 20.0),
    'max_angular_radps2': st.floats(0.5, 40.0),
    'max_delta_m': st.floats(0.001, 0.2),
    'max_delta_rad': st.floats(0.01, 1.0),
    'pose_output': st.booleans(),
    'chunk_handover': st.sampled_from(['replace', 'blend', 'ensemble']),
    'max_linear_mps3': st.one_of(st.just(0.0), st.floats(0.5, 500.0)),
    'max_angular_radps3': st.one_of(st.just(0.0), st.floats(0.5, 500.0)),
    'smoothing_s': st.one_of(st.just(0.0), st.floats(0.01, 0.5)),
    'workspace_min_m': st.just((0.4, -0.1, 0.25)),
    'workspace_max_m': st.just((0.6, 0.1, 0.35)),
})
events = st.one_of(
    st.tuples(st.just('chunk'), st.lists(rows, min_size=1, max_size=4), st.floats(0.02, 0.5)),
    st.tuples(st.just('ticks'), st.integers(1, 15), st.floats(0.1, 2.0)),
    st.tuples(st.sampled_from(['stop', 'enable', 'disable', 'blind', 'see', 'jump', 'press',
                               'release', 'let_go', 'pause', 'resume']),
              st.floats(-10.0, 10.0), st.none()),
)


class Oracle:
    """Checks every command against the limits, knowing only what came out."""

    def __init__(self, bench):
        self.limits = bench.parameters
        self.linear = np.zeros(3)
        self.angular = np.zeros(3)

    def check(self, command, dt_s, position):
        """Check one command, sent dt_s after the one before, with the tool at a position."""
        linear = np.zeros(3) if command is None else command.linear
        angular = np.zeros(3) if command is None else command.angular
        limits = self.limits
        assert np.linalg.norm(linear) <= limits.max_linear_mps + TOLERANCE
        assert np.linalg.norm(angular) <= limits.max_angular_radps + TOLERANCE
        assert np.linalg.norm(linear - self.linear) <= limits.max_linear_mps2 * dt_s + TOLERANCE
        assert np.linalg.norm(angular - self.angular) \
            <= limits.max_angular_radps2 * dt_s + TOLERANCE
        self.check_inside(position)
        if command is not None and command.pose is not None:
            self.check_inside(command.pose.position)
            assert abs(np.linalg.norm(command.pose.quaternion) - 1.0) <= TOLERANCE
        self.linear, self.angular = linear, angular

    def check_inside(self, position):
        """Check that a position lies in the workspace."""
        assert (position >= np.array(self.limits.workspace_min_m) - TOLERANCE).all()
        assert (position <= np.array(self.limits.workspace_max_m) + TOLERANCE).all()


def play(bench, event):
    """Let one event happen to the bench; return how many ticks follow and their length."""
    kind, value, extra = event
    if kind == 'chunk':
        bench.hold_deadman()
        bench.send(*value, period_s=extra)
    elif kind == 'ticks':
        return value, extra * bench.parameters.command_period_s
    elif kind == 'stop':
        bench.controller.stop('oracle')
    elif kind in ('enable', 'disable'):
        bench.controller.set_enabled(kind == 'enable')
    elif kind in ('press', 'release'):
        bench.controller.press_stop(kind == 'press')
    elif kind == 'let_go':
        bench.hold_deadman(False)
    elif kind in ('blind', 'see'):
        bench.pose_known = kind == 'see'
    elif kind in ('pause', 'resume'):
        bench.clock_runs = kind == 'resume'
    elif kind == 'jump':
        bench.ros_s += value
    return 1, bench.parameters.command_period_s


@QUICK
@given(parameters, st.lists(events, min_size=5, max_size=40))
def test_no_output_ever_exceeds_speed_acceleration_or_workspace(changes, happenings):
    bench = Bench(deadman=True, **changes)
    oracle = Oracle(bench)
    for event in happenings:
        count, dt_s = play(bench, event)
        for _ in range(count):
            command = bench.tick(dt_s)
            oracle.check(command, dt_s, bench.position)


@QUICK
@given(parameters, rows, st.floats(0.05, 0.5), st.integers(2, 6))
def test_the_displacement_of_a_command_never_exceeds_its_limit(changes, row, period_s, count):
    changes = {**changes, 'command_timeout_s': 4.0}
    bench = Bench(**changes)
    limits = bench.parameters
    bench.send(*[row] * count, period_s=period_s)
    for _ in range(50):
        command = bench.tick(limits.command_period_s)
        if command is not None:
            assert np.linalg.norm(command.linear) * period_s <= limits.max_delta_m + TOLERANCE
            assert np.linalg.norm(command.angular) * period_s <= limits.max_delta_rad + TOLERANCE


@QUICK
@given(rows, st.floats(0.02, 0.5), st.floats(0.02, 0.28), st.floats(0.02, 0.3))
def test_motion_never_outlives_the_timeout_and_always_ends_in_silence(row, period_s, age_s,
                                                                       timeout_s):
    bench = Bench(command_timeout_s=timeout_s, overrun_s=0.02)
    bench.send(*[row] * 5, period_s=period_s, observation_stamp_s=bench.ros_s - age_s)
    seen_s = bench.ros_s - age_s
    for _ in range(100):
        command = bench.tick()
        if command is not None and command.state is State.MOVING:
            assert bench.ros_s - seen_s <= timeout_s + TOLERANCE
    assert command is None and bench.controller.silent


@QUICK
@given(parameters, rows, st.floats(0.02, 0.5), st.floats(0.0, 0.1))
def test_rule_2_the_command_is_zero_a_ramp_and_a_period_after_the_timeout_at_the_latest(
        changes, row, period_s, age_s):
    bench = Bench(**{**changes, 'workspace_enabled': False, 'command_timeout_s': 0.2})
    limits = bench.parameters
    seen_s = bench.ros_s - age_s
    assert bench.send(*[row] * 30, period_s=period_s, observation_stamp_s=seen_s) is None
    ramp_s = max(limits.max_linear_mps / limits.max_linear_mps2,
                 limits.max_angular_radps / limits.max_angular_radps2)
    while bench.ros_s < seen_s + 0.2 + ramp_s + limits.command_period_s:
        bench.tick(limits.command_period_s)
    command = bench.tick(limits.command_period_s)
    assert command is None or not (command.linear.any() or command.angular.any())


bad_numbers = st.sampled_from([float('nan'), float('inf'), -float('inf'), 1e308, -1e308, 4.0])
spoilers = st.one_of(
    st.tuples(st.just('deltas'), st.tuples(st.integers(0, 2), st.integers(0, 6), bad_numbers)),
    st.tuples(st.just('shape'),
              st.sampled_from([(0, 7), (65, 7), (3, 6), (3, 8), (7,), (1, 3, 7)])),
    st.tuples(st.just('terminate'), st.sampled_from([(), (False,), (False,) * 4])),
    st.tuples(st.just('frame'), st.text(max_size=8).filter(lambda name: name != 'base')),
    st.tuples(st.just('period_s'),
              st.one_of(st.floats(max_value=0.0199), st.floats(min_value=1.01), st.just(np.nan))),
    st.tuples(st.just('age_s'), st.one_of(st.floats(min_value=0.301, max_value=1e6),
                                          st.floats(max_value=-0.051, min_value=-1e6),
                                          st.sampled_from([np.nan, np.inf, -np.inf]))),
    st.tuples(st.just('observation_stamp_s'), st.sampled_from([0.0, -1.0])),
    st.tuples(st.just('received_ago_s'), st.one_of(st.floats(0.301, 1e6), st.just(np.nan))),
    st.tuples(st.just('sequence'), st.integers(max_value=1)),
    st.tuples(st.just('publisher'), st.text(max_size=8).filter(lambda name: name != 'policy')),
    st.tuples(st.just('publisher_count'), st.integers(2, 9)),
)


def spoil(bench, spoiler):
    """Return the fields of a chunk with one of them made bad."""
    name, value = spoiler
    deltas = np.full((3, 7), 0.01)
    if name == 'deltas':
        step, dimension, number = value
        deltas[step, dimension] = number
    elif name == 'shape':
        deltas = np.zeros(value)
    fields = {'deltas': deltas}
    if name == 'age_s':
        fields['observation_stamp_s'] = bench.ros_s - value
    elif name == 'received_ago_s':
        fields['received_mono_s'] = bench.mono_s - value
    elif name not in ('deltas', 'shape'):
        fields[name] = value
    return fields


@settings(max_examples=400, deadline=None)
@given(spoilers)
def test_every_malformed_chunk_is_rejected_and_none_moves_the_robot(spoiler):
    bench = Bench(command_timeout_s=0.3)
    assert bench.send() is None
    bench.controller.stop('')
    bench.run(0.8)
    rejection = bench.send(**spoil(bench, spoiler))
    assert rejection is not None and '\n' not in str(rejection)
    assert bench.controller.counters.rejections[rejection.reason.value] == 1
    assert bench.tick() is None


def test_turning_close_to_a_face_of_the_workspace_does_not_cross_it():
    # Turning brakes the motion towards the face less than braking straight would.
    bench = Bench(max_linear_mps2=0.2, workspace_max_m=(0.6, 0.4, 0.6), command_timeout_s=1.0)
    oracle = Oracle(bench)
    for number in range(200):
        if number % 5 == 0:
            bench.send([0.04, 0, 0, 0, 0, 0, 0] if bench.position[0] < 0.55 else
                       [0, 0.04, 0, 0, 0, 0, 0])
        command = bench.tick()
        oracle.check(command, 0.02, bench.position)
    assert bench.position[0] > 0.58 and bench.position[1] > 0.02
