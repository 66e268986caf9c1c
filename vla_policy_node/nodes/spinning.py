"""An executor in a thread of its own, started and stopped by another one."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import threading
from typing import TypeVar

import rclpy
from rclpy.executors import Executor
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

_AnyNode = TypeVar('_AnyNode', bound=Node)


class SpinThread:
    """
    Runs the callbacks of nodes until it is stopped or one of them raises.

    It ends between two callbacks. `Executor.shutdown` while the executor spins takes away what it
    is about to wait for, and now and then rclpy stumbles over that.
    """

    def __init__(self, *nodes: Node, on_end: Callable[[], object] = lambda: None) -> None:
        """
        Prepare; `start` begins.

        :param on_end: called in the thread when it ends, for whatever reason.
        """
        self.executor = SingleThreadedExecutor()
        for node in nodes:
            self.executor.add_node(node)
        self.failure: BaseException | None = None
        self._on_end = on_end
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)

    def start(self) -> None:
        """Begin to run callbacks."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for the callback in progress; none comes afterwards, and nodes may be destroyed."""
        self.executor.create_task(_leave)
        self._thread.join()
        self.executor.shutdown()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except _StoppedError:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self._on_end()


@contextmanager
def spinning_node(
    make_node: Callable[[], _AnyNode], domain_id: int | None = None,
) -> Iterator[_AnyNode]:
    """
    Yield the only node of a process while it spins; what its callbacks raise comes at the end.

    Signals stay with the caller.

    :param domain_id: None for that of the environment.
    """
    rclpy.init(args=[], domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = make_node()
    spinning = SpinThread(node)
    spinning.start()
    try:
        yield node
    finally:
        spinning.stop()
        node.destroy_node()
        rclpy.shutdown()
        if spinning.failure is not None:
            raise spinning.failure


def ask_between_callbacks(executor: Executor, ask: Callable[[], Future]) -> Future:
    """
    Let the executor's thread ask, and return a future of the answer.

    rclpy's action client notes down what it has asked after asking. Asked from another thread, an
    answer that comes at once may find nothing noted, and is dropped for good.
    """
    answer = Future()

    def pass_on(asked: Future) -> None:
        if asked.exception() is not None:
            answer.set_exception(asked.exception())
        else:
            answer.set_result(asked.result())

    def start() -> None:
        try:
            ask().add_done_callback(pass_on)
        except Exception as error:
            answer.set_exception(error)

    executor.create_task(start)
    return answer


class _StoppedError(Exception):
    """Leaves the loop of an executor from within."""


def _leave() -> None:
    raise _StoppedError
