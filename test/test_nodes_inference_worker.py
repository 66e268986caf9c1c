"""The thread that owns the policy, without ROS: what it publishes and what it holds back."""

from dataclasses import dataclass
from dataclasses import field
import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy')

from nodes_bench import FakePolicy  # noqa: E402
from nodes_bench import PATIENCE_S  # noqa: E402
from nodes_bench import wait_until  # noqa: E402

from vla_policy_node.nodes.inference_worker import Failure  # noqa: E402
from vla_policy_node.nodes.inference_worker import InferenceWorker  # noqa: E402
from vla_policy_node.nodes.inference_worker import WorkerSettings  # noqa: E402
from vla_policy_node.nodes.mailbox import Frame  # noqa: E402
from vla_policy_node.policy import DecodeError  # noqa: E402
from vla_policy_node.policy import give_back_memory  # noqa: E402
from vla_policy_node.policy import PolicyError  # noqa: E402


@dataclass
class Listener:
    published: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def publish(self, step):
        self.published.append(step.chunk.plan)

    def stepped(self, step):
        pass

    def failed(self, generation, failure, reason):
        self.failures.append((failure, reason))


class Bench:
    """A worker on a fake policy, with frames of one grey level each."""

    def __init__(self, policy: FakePolicy, period_s: float = 0.001) -> None:
        self.policy = policy
        self.listener = Listener()
        self.worker = InferenceWorker(
            lambda: policy, self.listener,
            WorkerSettings(period_s=period_s, image_timeout_s=2.0, max_clock_skew_s=0.05),
            time.time_ns)
        self.worker.start()

    def think_about(self, level: int) -> None:
        """Begin an instruction with an inference that lasts until it may answer."""
        self.policy.may_answer.clear()
        self.worker.follow('go')
        self.see(level)
        assert self.policy.thinking.wait(PATIENCE_S)

    def finish(self) -> None:
        """Let the inference answer and wait for what becomes of the answer."""
        self.policy.may_answer.set()
        # A question is taken up after the step in progress.
        self.worker.ask('done?', 1).exception(PATIENCE_S)

    def see(self, level: int, age_s: float = 0.0) -> None:
        message = SimpleNamespace(
            height=4, width=4, step=12, encoding='rgb8', is_bigendian=0,
            data=np.full(48, level, np.uint8))
        self.worker.put('primary', Frame(
            message=message, stamp_ns=time.time_ns() - round(age_s * 1e9),
            received_monotonic_s=time.monotonic()))


@pytest.fixture
def make_bench():
    benches = []

    def make(**options) -> Bench:
        period_s = options.pop('period_s', 0.001)
        benches.append(Bench(FakePolicy(**options), period_s))
        return benches[-1]
    yield make
    for bench in benches:
        bench.worker.stop()


def test_a_frame_becomes_a_chunk(make_bench):
    bench = make_bench()
    bench.worker.follow('go')
    bench.see(10)
    wait_until(lambda: bench.listener.published == ['10'])


def test_without_an_instruction_nothing_is_inferred(make_bench):
    bench = make_bench()
    bench.see(10)
    time.sleep(0.05)
    assert bench.policy.instructions == []


def test_frames_that_come_during_an_inference_are_skipped_but_the_newest(make_bench):
    bench = make_bench()
    bench.think_about(10)
    for level in (20, 30, 40):
        bench.see(level)
    bench.policy.may_answer.set()
    wait_until(lambda: len(bench.listener.published) == 2)
    assert bench.listener.published == ['10', '40']


def test_a_frame_from_before_the_instruction_is_not_used(make_bench):
    bench = make_bench()
    bench.see(10)
    bench.worker.follow('go')
    time.sleep(0.05)
    assert bench.listener.published == []


def test_a_stale_frame_gives_no_chunk_and_says_its_age(make_bench):
    bench = make_bench()
    bench.worker.follow('go')
    bench.see(10, age_s=5.0)
    failure, reason = wait_until(lambda: bench.listener.failures)[0]
    assert failure is Failure.STALE_IMAGE
    assert 'at most 2.000 s old, found 5.0' in reason
    assert bench.listener.published == []


def test_a_frame_from_the_future_gives_no_chunk(make_bench):
    bench = make_bench()
    bench.worker.follow('go')
    bench.see(10, age_s=-1.0)
    failure, reason = wait_until(lambda: bench.listener.failures)[0]
    assert failure is Failure.STALE_IMAGE
    assert 'synchronise the clocks' in reason


def test_a_failed_decode_is_reported_and_never_published(make_bench):
    bench = make_bench(script=(DecodeError('no bin'),))
    bench.worker.follow('go')
    bench.see(10)
    wait_until(lambda: bench.listener.failures == [(Failure.DECODE_FAILED, 'no bin')])
    assert bench.listener.published == []


def test_collections_leave_a_loaded_policy_out_until_memory_is_given_back(make_bench):
    gc.unfreeze()
    make_bench()
    assert gc.get_freeze_count() > 1000
    give_back_memory()
    assert gc.get_freeze_count() == 0


def test_an_unexpected_error_is_a_fault_and_the_worker_goes_on(make_bench):
    bench = make_bench(script=(OSError('out of memory'),))
    bench.worker.follow('go')
    bench.see(10)
    wait_until(lambda: bench.listener.failures == [
        (Failure.FAULT, 'OSError: out of memory')])
    bench.see(20)
    wait_until(lambda: bench.listener.published == ['20'])


def test_an_image_of_unknown_encoding_is_counted_and_named(make_bench):
    bench = make_bench()
    bench.worker.follow('go')
    bench.worker.put('primary', Frame(
        message=SimpleNamespace(
            height=1, width=1, step=3, encoding='magic', is_bigendian=0,
            data=np.zeros(3, np.uint8)),
        stamp_ns=time.time_ns(), received_monotonic_s=0.0))
    failure, reason = wait_until(lambda: bench.listener.failures)[0]
    assert failure is Failure.BAD_IMAGE
    assert 'magic' in reason
    assert bench.worker.frames_refused == 1


def test_what_was_being_inferred_is_not_published_after_rest(make_bench):
    bench = make_bench()
    bench.think_about(10)
    bench.worker.rest()
    bench.finish()
    assert bench.listener.published == []


def test_an_inference_for_the_previous_instruction_is_not_published(make_bench):
    bench = make_bench()
    bench.think_about(10)
    bench.worker.follow('go')
    bench.finish()
    assert bench.listener.published == []


def test_inferences_keep_the_period(make_bench):
    bench = make_bench(period_s=0.1)
    bench.worker.follow('go')

    def started_s() -> list[float]:
        bench.see(10)
        return bench.policy.started_s[:5] if len(bench.policy.started_s) >= 5 else []

    first, *_, last = wait_until(started_s)
    # Four periods, one of which a busy machine may have taken from the first.
    assert last - first > 0.3


def test_a_step_starts_on_a_frame_that_has_just_come_instead_of_an_old_one(make_bench):
    # Frames every 100 ms and steps every 140 ms: when a step is due, the frame at hand is 0 to
    # 80 ms old.
    bench = make_bench(period_s=0.14)
    ages_s = []
    bench.listener.publish = lambda step: ages_s.append(
        time.monotonic() - step.frame.received_monotonic_s)
    bench.worker.follow('go')
    for _ in range(18):
        bench.see(10)
        time.sleep(0.1)
    assert len(ages_s) >= 8
    assert np.median(ages_s[5:]) < 0.03


def test_a_question_is_answered_from_the_newest_frame(make_bench):
    bench = make_bench()
    bench.see(10)
    started_ns = time.time_ns()
    bench.see(77)
    text, stamp_ns = bench.worker.ask('how bright?', 5).result(PATIENCE_S)
    assert text == 'how bright? 77 5'
    assert started_ns <= stamp_ns <= time.time_ns()


def test_a_question_without_a_frame_is_refused(make_bench):
    with pytest.raises(Exception, match='no frame has come'):
        make_bench().worker.ask('how bright?', 5).result(PATIENCE_S)


def test_what_loading_raises_is_raised_by_start():
    def load():
        raise ValueError('no such checkpoint')
    worker = InferenceWorker(
        load, Listener(),
        WorkerSettings(period_s=0.1, image_timeout_s=0.2, max_clock_skew_s=0.05), time.time_ns)
    with pytest.raises(ValueError, match='no such checkpoint'):
        worker.start()


def test_stop_closes_the_policy_and_ends_the_thread(make_bench):
    bench = make_bench()
    bench.worker.stop()
    assert bench.policy.closed
    assert 'inference' not in {thread.name for thread in threading.enumerate()}


def test_without_memory_it_ends_and_closes_the_policy_by_itself(make_bench):
    bench = make_bench(script=(MemoryError(),))
    bench.worker.follow('go')
    bench.see(10)
    wait_until(lambda: bench.policy.closed)
    assert bench.listener.failures == [(Failure.OUT_OF_MEMORY, 'MemoryError')]
    bench.see(20)
    with pytest.raises(RuntimeError, match='deactivated'):
        bench.worker.ask('how bright?', 5).result(PATIENCE_S)
    assert bench.listener.published == []


def test_what_the_policy_cannot_work_with_is_told_in_its_own_words(make_bench):
    bench = make_bench(script=(PolicyError('expected at most 320 tokens, found 400'),))
    bench.worker.follow('go')
    bench.see(10)
    wait_until(lambda: bench.listener.failures == [
        (Failure.FAULT, 'expected at most 320 tokens, found 400')])
