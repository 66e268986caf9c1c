"""Faults in actions: all held by the controller, and missed where a controller is broken."""

from dataclasses import replace

from faults_bench import play
import numpy as np
import pytest

from faults.motion_oracle import MotionOracle
from faults.motion_oracle import Robot
from faults.parts import actions
from vla_policy_node.control import ControlParameters
from vla_policy_node.control import MotionController
from vla_policy_node.control.gate import ChunkGate
from vla_policy_node.control.types import Command
from vla_policy_node.control.types import State

pytestmark = pytest.mark.slow


def test_every_bad_action_is_refused_by_name_and_no_output_exceeds_a_limit():
    results = play('actions')
    assert results.misses == []
    assert results['actions/malformed']['injected'] >= 3000
    assert set(results['actions/malformed']['rejections']) == {
        'non_finite', 'out_of_range', 'wrong_shape', 'unknown_frame', 'bad_period',
        'stale_observation', 'future_stamp', 'zero_stamp', 'stale_receipt', 'out_of_order'}
    assert results['actions/second_publisher']['rejections'] == {
        'second_publisher': results['actions/second_publisher']['injected']}
    assert results['actions/only_bad']['fault_to_zero_ms']['worst'] > 0.0


def misses_of(make, *only):
    def open_cases(**options):
        return actions.cases(make=make, **options)
    results = play('actions', *only, open_cases=open_cases)
    return sum(result['missed'] for result in results.values()), ' '.join(results.misses)


@pytest.mark.parametrize(('limits', 'found'), [
    ({'max_linear_mps': 2.0, 'max_delta_m': 1.0}, 'linear speed'),
    ({'max_angular_radps': 6.0, 'max_delta_rad': 3.0}, 'angular speed'),
    ({'max_linear_mps2': 50.0}, 'linear change'),
    ({'max_angular_radps2': 200.0}, 'angular change'),
    ({'max_delta_m': 1.0}, 'linear displacement'),
    ({'workspace_enabled': False}, 'outside'),
    ({'max_lead_rad': 1.5, 'pose_output': True}, 'rad ahead'),
])
def test_a_controller_with_a_limit_off_is_found_out(limits, found):
    def make(parameters, **options):
        return MotionController(replace(parameters, **limits), **options)
    missed, text = misses_of(make, 'actions/extreme')
    assert missed > 0 and found in text


def test_a_controller_that_goes_on_after_the_timeout_is_found_out():
    def make(parameters, **options):
        return MotionController(replace(
            parameters, command_timeout_s=5.0, overrun_s=1.0, max_period_s=5.0), **options)
    missed, text = misses_of(make, 'actions/only_bad')
    assert missed > 0 and 'expected' in text


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_a_gate_that_lets_bad_numbers_through_is_found_out(monkeypatch):
    monkeypatch.setattr(ChunkGate, '_check_values', lambda self, chunk: None)
    missed, text = misses_of(MotionController, 'actions/malformed')
    assert missed > 100 and 'instead of' in text


def test_a_gate_that_gives_another_name_is_found_out(monkeypatch):
    check = ChunkGate._check_age
    monkeypatch.setattr(ChunkGate, '_check_age', ChunkGate._check_order)
    monkeypatch.setattr(ChunkGate, '_check_order', check)
    assert misses_of(MotionController, 'actions/malformed')[0] > 0


class Forgetful(MotionController):
    """Refuses, but does not count."""

    def accept(self, *arguments):
        rejection = super().accept(*arguments)
        self.counters.rejected = 0
        self.counters.rejections.clear()
        return rejection


def test_a_controller_that_does_not_count_is_found_out():
    missed, text = misses_of(Forgetful, 'actions/malformed')
    assert missed > 0 and 'counted {} and 0 in all' in text


class Startled(MotionController):
    """Lets a refused chunk disturb the motion."""

    def accept(self, *arguments):
        rejection = super().accept(*arguments)
        if rejection is not None:
            self.stop('startled')
        return rejection


def test_a_controller_that_a_refused_chunk_disturbs_is_found_out():
    missed, text = misses_of(Startled, 'actions/malformed')
    assert missed > 0 and 'instead of' in text


class Trusting(MotionController):
    """Asks no interlock."""

    def _check_interlocks(self, now_mono_s):
        return None


def test_a_controller_without_interlocks_is_found_out():
    missed, text = misses_of(Trusting, 'actions/interlocks')
    assert missed > 0 and 'accepted, expected' in text


class TestOracle:
    LIMITS = ControlParameters(
        max_linear_mps=0.1, max_linear_mps2=1.0, workspace_min_m=(0.4, -0.1, 0.25),
        workspace_max_m=(0.6, 0.1, 0.35))

    def oracle(self, position=(0.5, 0.0, 0.3)):
        return MotionOracle(self.LIMITS, Robot(np.array(position)))

    def command(self, x=0.0, **changes):
        fields = {
            'linear': np.array([x, 0.0, 0.0]), 'angular': np.zeros(3), 'gripper': None,
            'pose': None, 'state': State.MOVING, 'clamps': (), 'sequence': 1,
            'observation_stamp_s': 1.0, 'first_of_chunk': False}
        return Command(**{**fields, **changes})

    def test_what_is_within_the_limits_is_no_fault(self):
        assert self.oracle().fault(self.command(0.01), 0.01, may_move=True) is None
        assert self.oracle().fault(None, 0.01, may_move=False) is None

    @pytest.mark.parametrize(('command', 'found'), [
        ({'x': 0.02}, 'linear change 0.02 over 1.0 x 0.01'), ({'x': float('nan')}, 'speed nan'),
        ({'x': 1.0}, 'linear speed 1.0 over 0.1'), ({'gripper': 0.5}, 'gripper 0.5')])
    def test_what_exceeds_one_is(self, command, found):
        assert found in self.oracle().fault(self.command(**command), 0.01, may_move=True)

    def test_a_tool_outside_the_box_is_a_fault(self):
        assert 'outside' in self.oracle((0.7, 0.0, 0.3)).fault(None, 0.01, may_move=True)

    def test_braking_less_than_possible_is_a_fault_where_nothing_may_be_followed(self):
        oracle = self.oracle()
        assert oracle.fault(self.command(0.01), 0.01, may_move=True) is None
        assert 'expected braking to 0' in oracle.fault(self.command(0.01), 0.01, may_move=False)
