"""The thread that runs callbacks: it ends when told to and keeps what went wrong."""

import threading

import pytest

pytest.importorskip('rclpy')

from nodes_bench import PATIENCE_S  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
import rclpy  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.task import Future  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402

from vla_policy_node.nodes.spinning import ask_between_callbacks  # noqa: E402
from vla_policy_node.nodes.spinning import SpinThread  # noqa: E402


@pytest.fixture
def node():
    rclpy.init(args=[])
    node = Node('spun')
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_it_can_be_stopped_at_any_moment_while_callbacks_come(node):
    heard = threading.Event()
    publisher = node.create_publisher(Float64, 'echo', 1)
    node.create_subscription(Float64, 'echo', lambda _: heard.set(), 1)
    node.create_timer(0.0005, lambda: publisher.publish(Float64()))
    for _ in range(50):
        spinning = SpinThread(node)
        spinning.start()
        assert heard.wait(PATIENCE_S)
        heard.clear()
        spinning.stop()
        assert spinning.failure is None


def test_no_callback_comes_after_it_was_stopped(node):
    calls = []
    node.create_timer(0.001, lambda: calls.append(1))
    spinning = SpinThread(node)
    spinning.start()
    spinning.stop()
    count = len(calls)
    threading.Event().wait(0.05)
    assert len(calls) == count


def test_a_callback_that_raises_ends_it_and_says_why(node):
    ended = threading.Event()

    def fail() -> None:
        raise OSError('no camera')
    node.create_timer(0.001, fail)
    spinning = SpinThread(node, on_end=ended.set)
    spinning.start()
    assert ended.wait(PATIENCE_S)
    spinning.stop()
    assert str(spinning.failure) == 'no camera'


def test_what_is_asked_is_asked_in_the_thread_of_the_callbacks(node):
    askers = []

    def ask() -> Future:
        askers.append(threading.current_thread().name)
        answer = Future()
        answer.set_result(7)
        return answer

    spinning = SpinThread(node)
    spinning.start()
    answer = ask_between_callbacks(spinning.executor, ask)
    wait_until(answer.done)
    assert (answer.result(), askers) == (7, ['executor'])
    spinning.stop()


def test_what_cannot_be_asked_says_why(node):
    def ask() -> Future:
        raise TypeError('no goal')

    spinning = SpinThread(node)
    spinning.start()
    answer = ask_between_callbacks(spinning.executor, ask)
    wait_until(answer.done)
    assert isinstance(answer.exception(), TypeError)
    spinning.stop()
    assert spinning.failure is None
