"""A policy process that stops, dies or hangs: held, and missed where the controller goes on."""

from functools import partial
import os
import signal

from faults_bench import play
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from faults.live.children import Children  # noqa: E402
from faults.parts import processes  # noqa: E402

pytestmark = pytest.mark.integration


def test_the_arm_stops_in_time_and_stays_at_rest_until_it_may_move():
    results = play('processes')
    assert results.misses == []
    for name in ('stopped', 'killed', 'hung'):
        times = results[f'processes/{name}']['fault_to_zero_ms']
        assert times['count'] == results[f'processes/{name}']['injected'] > 0
        assert times['worst'] > 0.0


def test_a_controller_that_trusts_an_action_for_seconds_is_found_out():
    slow = partial(processes.cases, command_timeout_s=5.0, overrun_s=0.8)
    results = play('processes', 'processes/stopped', open_cases=slow, episode=0)
    assert results['processes/stopped']['missed'] == 1
    assert 'expected within 110 ms' in results.misses[0]


def test_a_stopped_process_is_not_left_behind(tmp_path):
    with Children(tmp_path, os.environ) as children:
        pid = children.start('sleeper', ['sleep', '300'])
        children.signal('sleeper', signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
