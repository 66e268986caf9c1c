"""What is said about the rhythm of the control loop, by the node and by the benchmark."""

from pathlib import Path
import sys

import numpy as np
import pytest

from vla_policy_node.control import LoopTiming

sys.path.append(str(Path(__file__).resolve().parents[1] / 'benchmarks'))

import control_loop


def timing_of(*ticks_s):
    timing = LoopTiming(0.01)
    for tick_s in ticks_s:
        timing.tick(tick_s)
    return timing


def test_even_ticks_have_no_jitter():
    timing = timing_of(*(5.0 + 0.01 * number for number in range(100)))
    assert timing.p99_ms() == pytest.approx(0.0, abs=1e-9)
    assert timing.worst_ms == pytest.approx(0.0, abs=1e-9)


def test_before_the_second_tick_there_is_no_jitter():
    assert timing_of().p99_ms() == timing_of(3.0).p99_ms() == 0.0


def test_a_late_tick_and_the_early_one_after_it_both_count():
    assert timing_of(0.0, 0.014, 0.02).worst_ms == pytest.approx(4.0)
    assert timing_of(0.0, 0.014, 0.02).p99_ms() == pytest.approx(4.0)


def test_the_worst_is_kept_and_the_p99_is_of_the_latest_ticks():
    ticks_s = np.concatenate(([0.0, 0.05], 0.05 + 0.01 * np.arange(1, 7000)))
    timing = timing_of(*ticks_s)
    assert timing.worst_ms == pytest.approx(40.0)
    assert timing.p99_ms() == pytest.approx(0.0, abs=1e-6)


def test_the_benchmark_leaves_out_answers_to_chunks_and_nothing_else():
    # The second command answered a chunk 3 ms after the first; its status came 0.1 ms later.
    commands_ns = [10_000_000, 13_000_000, 20_000_000, 31_000_000]
    times_s = control_loop.rhythm(commands_ns, [13_100_000])
    assert times_s == pytest.approx([0.010, 0.020, 0.031])
    assert control_loop.jitter_ms(times_s, 0.01) == pytest.approx([0.0, 1.0])
