"""How a newer chunk takes over from the older ones."""

import math

from control_bench import Bench
from control_bench import delta
from control_bench import TICK_S
import numpy as np
import pytest

from vla_policy_node.control import State

FAST = {'max_linear_mps2': 50.0, 'command_timeout_s': 1.0, 'workspace_enabled': False}


def along_x_then_y(**parameters):
    """Run a long chunk along x for 0.3 s, then offer one along y; return the bench."""
    bench = Bench(**{**FAST, **parameters})
    assert bench.send(*[delta(x=0.02)] * 4) is None
    bench.run(0.3)
    assert bench.send(*[delta(y=0.02)] * 4) is None
    return bench


def test_replaced_at_once_by_default():
    bench = along_x_then_y()
    assert bench.tick().linear == pytest.approx([0.0, 0.1, 0.0])


def test_blended_linearly_within_its_time():
    bench = along_x_then_y(chunk_handover='blend', blend_s=0.1)
    shares = [command.linear[1] / 0.1 for command in bench.run(0.14)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])
    assert bench.command.linear == pytest.approx([0.0, 0.1, 0.0])


def test_blended_over_three_chunks_without_a_jump():
    bench = along_x_then_y(chunk_handover='blend', blend_s=0.2)
    before = bench.run(0.1)[-1].linear
    bench.send(*[delta(z=0.02)] * 4)
    after = bench.tick().linear
    assert np.linalg.norm(after - before) < 0.02
    assert bench.run(0.2)[-1].linear == pytest.approx([0.0, 0.0, 0.1])


def test_an_ensemble_weighs_every_chunk_that_predicts_the_moment():
    bench = along_x_then_y(chunk_handover='ensemble', ensemble_decay=0.5)
    older = math.exp(-0.5) / (1.0 + math.exp(-0.5))
    assert bench.tick().linear == pytest.approx([0.1 * older, 0.1 * (1.0 - older), 0.0])


def test_an_ensemble_without_decay_is_the_mean():
    bench = along_x_then_y(chunk_handover='ensemble', ensemble_decay=0.0)
    bench.tick()
    bench.send(*[delta(z=0.02)] * 4)
    assert bench.tick().linear == pytest.approx([0.1 / 3] * 3)


def test_an_older_chunk_counts_in_an_ensemble_only_as_far_as_it_predicts():
    bench = along_x_then_y(chunk_handover='ensemble')
    # The chunk along x began 0.3 s earlier and lasts 0.8 s.
    commands = bench.run(0.54)
    assert commands[23].linear[0] > 0.0 and commands[26].linear[0] == 0.0


def test_an_older_chunk_beyond_the_timeout_does_not_count_in_an_ensemble():
    bench = along_x_then_y(chunk_handover='ensemble', command_timeout_s=0.5)
    commands = bench.run(0.3)
    assert commands[8].linear[0] > 0.0 and commands[11].linear[0] == 0.0


def test_an_older_chunk_counts_only_until_it_considers_the_task_done():
    bench = Bench(chunk_handover='ensemble', **FAST)
    bench.send(*[delta(x=0.02)] * 4, terminate=(False, False, True, False))
    bench.run(0.3)
    bench.send(*[delta(y=0.02)] * 4)
    commands = bench.run(0.2)
    assert commands[3].linear[0] > 0.0 and commands[6].linear[0] == 0.0


def test_a_chunk_of_another_period_replaces():
    bench = Bench(chunk_handover='ensemble', **FAST)
    bench.send(*[delta(x=0.02)] * 4)
    bench.run(0.1)
    bench.send(*[delta(y=0.02)] * 4, period_s=0.1)
    assert bench.tick().linear == pytest.approx([0.0, 0.2, 0.0])


@pytest.mark.parametrize('handover', ['replace', 'blend', 'ensemble'])
def test_the_newest_chunk_alone_moves_the_gripper(handover):
    bench = Bench(chunk_handover=handover, **FAST)
    bench.send(*[delta(gripper=1.0)] * 4)
    bench.run(0.1)
    bench.send(*[delta(gripper=0.0)] * 4)
    assert bench.tick().gripper == 0.0


@pytest.mark.parametrize('handover', ['replace', 'blend', 'ensemble'])
def test_the_newest_chunk_alone_ends_the_motion(handover):
    bench = Bench(chunk_handover=handover, **FAST)
    bench.send(*[delta(x=0.02)] * 4)
    bench.run(0.1)
    bench.send(delta(y=0.02), terminate=(True,))
    assert bench.tick().state is State.STOPPING


@pytest.mark.parametrize('handover', ['replace', 'blend', 'ensemble'])
def test_rule_5_no_chunk_outlives_a_pause(handover):
    bench = along_x_then_y(chunk_handover=handover)
    bench.tick()
    bench.controller.stop('pause')
    assert bench.run(0.8)[-1] is None
    bench.send(*[delta(z=0.02)] * 4)
    command = bench.tick()
    assert command.linear[2] > 0.0 and not command.linear[:2].any()


@pytest.mark.parametrize('handover', ['blend', 'ensemble'])
def test_rule_3_a_mixture_is_as_limited_as_its_parts(handover):
    bench = Bench(chunk_handover=handover, max_linear_mps=0.1, **FAST)
    for _ in range(10):
        bench.send(*[delta(x=0.9, y=-0.9)] * 4)
        command = bench.run(2 * TICK_S)[-1]
        assert np.linalg.norm(command.linear) <= 0.1 + 1e-12
        assert 'linear_speed' in command.clamps


def test_the_work_of_a_tick_is_bounded_however_fast_chunks_come():
    bench = Bench(chunk_handover='ensemble', **FAST)
    for _ in range(200):
        bench.ros_s += 0.001
        assert bench.send(*[delta(x=0.02)] * 16) is None
    assert len(bench.controller._execution.due(bench.ros_s, bench.mono_s).parts) == 16
