"""The soak in its short form, what it judges by, and that a leak or a drift is found out."""

from functools import partial
from multiprocessing.shared_memory import SharedMemory
import os

from faults_bench import play
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from faults.live.usage import Usage  # noqa: E402
from faults.live.usage import usage  # noqa: E402
from faults.parts import soak  # noqa: E402
from faults.parts.drift import slope_per_hour  # noqa: E402

HOUR_S = np.arange(0.0, 3600.0, 5.0)


def noise(scale, seed=0):
    return np.random.default_rng(seed).normal(scale=scale, size=len(HOUR_S))


@pytest.mark.integration
def test_a_short_soak_neither_grows_nor_stops():
    results = play('soak')
    assert results.misses == []
    figures = results['soak/short']['figures']
    assert figures['latency']['chunks'] > 20
    assert {f'memory {name}' for name in soak.PROCESSES} < set(figures)


@pytest.mark.integration
def test_a_policy_that_keeps_what_it_sees_is_found_out():
    leaking = partial(
        soak.cases, leak_bytes=1_000_000,
        form=soak.Form(warm_up_pieces=0, pieces=1, piece_s=6.0, sample_s=0.2, period_s=0.04))
    results = play('soak', open_cases=leaking)
    assert 'policy_node: memory grew by' in ' '.join(results.misses)


class TestMemory:
    def test_what_a_process_has_for_itself_counts_and_shared_segments_do_not(self):
        before = usage(os.getpid()).rss_bytes
        own = np.ones(20_000_000, np.uint8)
        with_own = usage(os.getpid()).rss_bytes
        segment = SharedMemory(create=True, size=30_000_000)
        try:
            np.ndarray(30_000_000, np.uint8, segment.buf).fill(1)
            assert usage(os.getpid()).rss_bytes - with_own < 2e6
        finally:
            segment.close()
            segment.unlink()
        assert with_own - before == pytest.approx(own.nbytes, abs=2e6)

    @pytest.mark.parametrize('slope', [0.0, 0.8, 1.3, 30.0])
    def test_a_slope_is_found_under_noise_and_outliers(self, slope):
        values = 500.0 + slope * HOUR_S / 3600.0 + noise(0.5)
        values[100::50] += 40.0
        found, error = slope_per_hour(HOUR_S, values)
        assert found == pytest.approx(slope, abs=0.2)
        assert 0.0 < error < 0.2

    def test_a_megabyte_an_hour_is_too_much(self):
        for slope, is_held in ((0.5, True), (1.5, False)):
            rss = 1e6 * (500.0 + slope * HOUR_S / 3600.0 + noise(0.1))
            trouble, _ = soak.memory_fault(HOUR_S, rss, short=False)
            assert (trouble is None) == is_held

    def test_noise_that_hides_a_megabyte_an_hour_is_a_miss_too(self):
        rss = 1e6 * (500.0 + np.repeat(noise(20.0)[:24], len(HOUR_S) // 24))
        trouble, figures = soak.memory_fault(HOUR_S, rss, short=False)
        assert figures['error_mb_per_hour'] > 1.0 and trouble is not None


class TestLatency:
    def record(self, last_ms, waited_last_s):
        """Return an hour whose last quarter differs, of 5 Hz with samples every 5 s."""
        count = len(HOUR_S)
        late = np.arange(count) >= 3 * count // 4
        waited = np.cumsum(np.where(late, waited_last_s, 0.01))
        usages = [{name: Usage(rss_bytes=0, cpu_s=0.1 * i, waited_s=float(waited[i]))
                   for name in soak.PROCESSES} for i in range(count)]
        latencies = np.random.default_rng(0).normal(60.0, 5.0, size=5 * 3600)
        latencies[3 * len(latencies) // 4:] += last_ms
        return soak.Record(
            times_s=HOUR_S.tolist(), usages=usages, chunks=[25 * i for i in range(count)],
            loads=[1.0] * count, latencies_ms=[(0.0, value) for value in latencies])

    def test_a_steady_latency_is_held(self):
        trouble, figures = soak.latency_fault(self.record(0.0, 0.01), short=False)
        assert trouble is None and abs(figures['drift']) < 0.02

    def test_a_drift_is_a_miss(self):
        trouble, _ = soak.latency_fault(self.record(10.0, 0.01), short=False)
        assert 'latency p99 drifted by' in trouble

    def test_a_drift_while_the_machine_lets_everything_wait_is_told_as_such(self):
        trouble, figures = soak.latency_fault(self.record(10.0, 0.1), short=False)
        assert trouble is None and figures['explained_by_load'] is True
