"""Bad chunks sent to the real controller: refused by name, and missed where it takes them."""

from functools import partial

from faults_bench import play
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from faults.parts import actions_over_dds  # noqa: E402

pytestmark = pytest.mark.integration

# A controller whose gate does not look at the frame of a chunk.
GULLIBLE = """
from dataclasses import replace
from vla_policy_node.control.gate import ChunkGate
from vla_policy_node.nodes.controller_node import main
check = ChunkGate.check
ChunkGate.check = lambda self, chunk, *times: check(self, replace(chunk, frame='base'), *times)
main()
"""


def test_every_bad_chunk_is_refused_and_counted_under_its_name():
    results = play('actions_over_dds')
    assert results.misses == []
    assert set(results['actions_over_dds/malformed']['rejections']) == {
        'non_finite', 'out_of_range', 'wrong_shape', 'unknown_frame', 'bad_period',
        'stale_observation', 'future_stamp', 'zero_stamp', 'out_of_order'}
    assert results['actions_over_dds/second_publisher']['rejections'] == {'second_publisher': 2}
    assert results['actions_over_dds/only_bad']['fault_to_zero_ms']['worst'] > 0.0


def test_a_controller_that_takes_any_frame_is_found_out():
    gullible = partial(actions_over_dds.cases, controller=('-c', GULLIBLE))
    results = play(
        'actions_over_dds', 'actions_over_dds/malformed', open_cases=gullible, episode=0)
    assert results['actions_over_dds/malformed']['missed'] >= 2
    assert 'the bad chunk was accepted' in results.misses[0]
