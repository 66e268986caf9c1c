"""Memory, disks, files and parameters: held, and missed where a parameter may be changed."""

from faults_bench import play
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from faults.parts.resources import Resources  # noqa: E402

pytestmark = pytest.mark.integration


def test_the_arm_stops_or_goes_on_safely_and_every_error_is_told():
    results = play('resources')
    assert results.misses == []
    assert results['resources/memory_in_mid_run']['fault_to_zero_ms']['worst'] > 0.0
    assert results['resources/parameters']['rejections'] == {'read_only': 4}


def test_a_node_that_takes_a_parameter_while_moving_is_found_out(monkeypatch):
    # Of what ROS declares itself this is one that may be set.
    monkeypatch.setattr('faults.parts.resources._CONTROLLER_PARAMETERS', {'use_sim_time': True})
    monkeypatch.setattr('faults.parts.resources._POLICY_PARAMETERS', {'rate_hz': 1000.0})
    monkeypatch.setattr(Resources, '_usual', _with_clock_back(Resources._usual))
    results = play('resources', 'resources/parameters', episode=0)
    assert results['resources/parameters']['missed'] >= 1
    assert '/controller_node took use_sim_time True' in results.misses[0]


def _with_clock_back(usual):
    def set_up(self):
        usual(self)
        take = self._set

        def take_and_give_back(node, name, value):
            taken = take(node, name, value)
            if name == 'use_sim_time':
                take(node, name, False)
            return taken
        self._set = take_and_give_back
    return set_up
