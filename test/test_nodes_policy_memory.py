"""A policy node whose model runs out of memory lets it go, says why and publishes nothing."""

import time
import weakref

import pytest

pytest.importorskip('rclpy')

from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from nodes_bench import FakePolicy  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from policy_node_bench import benches  # noqa: E402
from policy_node_bench import NAME  # noqa: E402
import torch  # noqa: E402
from vla_msgs.action import ExecuteInstruction  # noqa: E402
from vla_msgs.msg import PolicyStatus  # noqa: E402
from vla_msgs.srv import Ask  # noqa: E402

from vla_policy_node.policy import PolicyError  # noqa: E402
from vla_policy_node.policy import PolicyMemoryError  # noqa: E402

Result = ExecuteInstruction.Result
GPU_IS_FULL = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
CPU_IS_FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")


@pytest.fixture
def make_bench():
    with benches() as make:
        yield make


class ForgetfulPolicy(FakePolicy):
    """Runs out of memory when asked a question."""

    def answer(self, observation, max_new_tokens=64):
        raise GPU_IS_FULL


def is_unconfigured(bench):
    return wait_until(lambda: bench.state() == State.PRIMARY_STATE_UNCONFIGURED)


@pytest.mark.parametrize('error', [
    GPU_IS_FULL, CPU_IS_FULL, MemoryError(), PolicyMemoryError('inference: out of memory')],
    ids=lambda error: type(error).__name__)
def test_in_the_middle_of_a_run_the_model_is_unloaded_and_nothing_more_published(
        make_bench, error):
    bench = make_bench(FakePolicy(script=(False, error))).start()
    bench.film()
    result = bench.result(bench.send()).result
    assert (result.error_code, result.steps) == (Result.UNKNOWN, 1)
    assert result.error_msg == (str(error) or 'MemoryError')
    assert is_unconfigured(bench)
    assert bench.policy.closed
    ended_ns = bench.now_ns()
    time.sleep(0.2)
    assert bench.published_after(ended_ns) == []
    assert len(bench.chunks) == 1


def test_the_status_says_why_no_model_is_loaded_any_more(make_bench):
    bench = make_bench(FakePolicy(script=(GPU_IS_FULL,))).start()
    bench.film()
    bench.send()
    bench.status_where(lambda status: status.state == PolicyStatus.UNCONFIGURED
                       and 'CUDA out of memory' in status.state_text)


def test_nothing_of_the_policy_stays_in_memory(make_bench):
    bench = make_bench()
    alive = []

    def make_policy(_):
        policy = FakePolicy(script=(torch.OutOfMemoryError('CUDA out of memory'),))
        alive.append(weakref.ref(policy))
        return policy
    bench.node._make_policy = make_policy
    bench.start()
    bench.film()
    bench.send()
    assert is_unconfigured(bench)
    wait_until(lambda: alive[0]() is None)


def test_it_can_be_configured_again_when_there_is_memory(make_bench):
    bench = make_bench(FakePolicy(script=(GPU_IS_FULL,))).start()
    bench.film()
    bench.result(bench.send())
    assert is_unconfigured(bench)
    bench.start()
    bench.send()
    wait_until(lambda: bench.chunks)


def test_a_question_that_takes_the_last_memory_is_refused_and_unloads_the_model(make_bench):
    bench = make_bench(ForgetfulPolicy()).start()
    bench.film()
    handle = bench.send()
    wait_until(lambda: bench.chunks)
    answer = bench.graph.call(Ask, f'{NAME}/ask', Ask.Request(question='how bright?'))
    assert not answer.success and 'CUDA out of memory' in answer.message
    assert 'CUDA out of memory' in bench.result(handle).result.error_msg
    assert is_unconfigured(bench) and bench.policy.closed


def test_at_load_the_transition_is_refused_with_the_reason(make_bench, capfd):
    bench = make_bench()

    def make_policy(_):
        raise PolicyMemoryError('loading models/big: out of memory')
    bench.node._make_policy = make_policy
    assert not bench.change(Transition.TRANSITION_CONFIGURE)
    assert bench.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert 'configure refused: loading models/big: out of memory' in capfd.readouterr().err
    bench.node._make_policy = lambda _: bench.policy
    assert bench.change(Transition.TRANSITION_CONFIGURE)


def test_a_policy_that_fails_its_self_test_is_closed(make_bench):
    bench = make_bench(FakePolicy(blind=True))
    assert not bench.change(Transition.TRANSITION_CONFIGURE)
    assert bench.policy.closed


def test_a_frame_that_the_policy_cannot_work_with_ends_only_the_instruction(make_bench):
    error = PolicyError('expected at most 320 tokens of prompt, found 400')
    bench = make_bench(FakePolicy(script=(error,))).start()
    bench.film()
    result = bench.result(bench.send()).result
    assert (result.error_code, result.error_msg) == (Result.UNKNOWN, str(error))
    assert bench.chunks == []
    assert bench.state() == State.PRIMARY_STATE_ACTIVE
    bench.send()
    wait_until(lambda: bench.chunks)


def test_what_the_model_takes_is_logged_when_it_is_loaded(make_bench, capfd):
    policy = FakePolicy()
    policy.memory = '3.9 GB: vision 0.8 GB'
    policy.kept_layers = ('vision.a', 'vision.b', 'vision.c', 'vision.d')
    bench = make_bench(policy)
    assert bench.change(Transition.TRANSITION_CONFIGURE)
    log = capfd.readouterr().err
    assert 'memory: 3.9 GB: vision 0.8 GB' in log
    assert '4 layers are not quantised because of their shape: vision.a, vision.b, vision.c, ...' \
        in log
