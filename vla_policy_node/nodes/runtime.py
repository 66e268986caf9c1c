"""
How each node's process starts, spins, stops and fails.

Callbacks run in one executor thread; the main thread waits for SIGINT or SIGTERM. rclpy's own
signal handlers are not installed, because they invalidate the context before a node could send
its last commands.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from typing import Protocol

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
import rclpy
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer

from vla_policy_node.nodes.spinning import SpinThread

# How long other participants get to be discovered, and a namesake to be heard on /diagnostics.
_DISCOVERY_S = 0.5
_LISTEN_S = 1.5


class StartError(RuntimeError):
    """A node cannot start; the message is one line that says why and how to mend it."""


class ClosableNode(Protocol):
    """A node with something to do before its process ends."""

    def close(self) -> None:
        """Stop whatever runs; publishing is still possible, callbacks no longer come."""


def identity() -> str:
    """Return '<host>:<pid>', which tells two processes of one node name apart."""
    return f'{socket.gethostname()}:{os.getpid()}'


def steady_timer(node: Node, period_s: float, callback: Callable[[], None]) -> Timer:
    """Return a timer that keeps running when the ROS clock stands still."""
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def run(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """
    Make a node, spin it until a signal comes, close it.

    :return: exit code: 0 after a signal, 1 after an error, of which one line is on stderr.
    """
    node = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
        with _only_instance(node.get_fully_qualified_name()):
            _refuse_namesake(node)
            _spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, RuntimeError, OSError) as error:
        print(f'error: {_one_line(error)}', file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(node: Node) -> None:
    """Spin in a thread of its own until a signal comes or a callback raises."""
    stop = threading.Event()
    spinning = SpinThread(node, on_end=stop.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    spinning.start()
    try:
        stop.wait()
    finally:
        spinning.stop()
    if spinning.failure is not None:
        if not isinstance(spinning.failure, (StartError, ExternalShutdownException)):
            # A bug, not a user's mistake: whoever mends it needs the place.
            traceback.print_exception(spinning.failure)
        raise spinning.failure


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return text or type(error).__name__


@contextmanager
def _only_instance(name: str) -> Iterator[None]:
    """
    Hold a lock on a node's name; raise StartError if another process on this machine has it.

    The kernel frees the lock of a process that died, and unlike the ROS graph, which takes up to
    three seconds to show a namesake, it is certain at once.
    """
    folder = Path(tempfile.gettempdir()) / f'vla_policy_node_{os.getuid()}'
    folder.mkdir(mode=0o700, exist_ok=True)
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    with (folder / f'{domain}{name.replace("/", ".")}.lock').open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _started_twice(name, file.read()) from None
        file.truncate(0)
        file.write(identity())
        file.flush()
        yield


def _started_twice(name: str, owner: str) -> StartError:
    return StartError(
        f'node started twice: {name} runs already as {owner} (host:pid); stop it, or give this one'
        ' another name with --ros-args -r __node:=NAME')


def _refuse_namesake(node: Node) -> None:
    """
    Raise StartError if a node with this node's name runs on another machine.

    A killed process stays in the ROS graph for some seconds, so a namesake in the graph counts
    only if it is heard: each node of this package publishes diagnostics every second.
    """
    name = node.get_fully_qualified_name()
    deadline = time.monotonic() + _DISCOVERY_S
    while _count(node, name) < 2:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    others = _listen_for(name) - {identity()}
    if others:
        raise _started_twice(name, others.pop())
    node.get_logger().warning(
        f'{name} is in the ROS graph already but silent; it was probably killed just now')


def _listen_for(name: str) -> set[str]:
    """Return who publishes diagnostics under a node name; says meanwhile that it is starting."""
    heard: set[str] = set()
    node = Node('start_check', use_global_arguments=False, enable_rosout=False)
    announcement = DiagnosticArray(status=[
        DiagnosticStatus(name=name, message='starting', hardware_id=identity())])
    publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    node.create_subscription(
        DiagnosticArray, '/diagnostics', lambda message: heard.update(
            status.hardware_id for status in message.status if status.name == name), 10)
    deadline = time.monotonic() + _LISTEN_S
    while not heard - {identity()} and time.monotonic() < deadline:
        # Two that start at the same moment hear each other.
        publisher.publish(announcement)
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    return heard


def _count(node: Node, name: str) -> int:
    full_names = [
        f'{namespace.rstrip("/")}/{base}'
        for base, namespace in node.get_node_names_and_namespaces()]
    return full_names.count(name)
