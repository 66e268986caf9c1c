"""What the one-shot commands `instruct` and `ask` share: a short-lived node and patient calls."""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import os
import sys
import time
from typing import Any

import rclpy
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

_SPIN_S = 0.1
_INTERRUPTED = 130


class CommandError(RuntimeError):
    """A command cannot be carried out; the message is one line that says why."""


def arguments() -> list[str]:
    """Return the command line without the program's name and ROS's own arguments."""
    return remove_ros_args(sys.argv)[1:]


def run_command(command: Callable[[], int]) -> int:
    """Run a command; return its exit code, 1 with one line on stderr after an error."""
    try:
        return command()
    except (KeyboardInterrupt, ExternalShutdownException):
        return _INTERRUPTED
    except (ValueError, RuntimeError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1


@contextmanager
def short_lived_node(name: str) -> Iterator[Node]:
    """Yield a node with a name of its own; rclpy leaves Ctrl-C to Python, so that it can end."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node(f'{name}_{os.getpid()}', start_parameter_services=False, enable_rosout=False)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def wait_for(node: Node, future: Future, timeout_s: float, what: str) -> Any:
    """Spin until a future is done and return its result; raises CommandError after a while."""
    deadline_s = time.monotonic() + timeout_s
    while not future.done():
        rclpy.spin_until_future_complete(node, future, timeout_sec=_SPIN_S)
        if time.monotonic() > deadline_s:
            raise CommandError(f'expected {what} within {timeout_s:g} s, got nothing')
    return future.result()


def nobody_offers(what: str, waited_s: float) -> CommandError:
    """Return the error for a missing server, to be raised."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return CommandError(
        f'nobody offers the {what} (waited {waited_s:g} s); start the node, and check that both'
        f' use one ROS_DOMAIN_ID (here {domain})')


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Add --wait, how long to wait for a server [s]."""
    parser.add_argument(
        '--wait', type=float, default=5.0, metavar='S',
        help='how long to wait for the node in seconds (default 5)')


def call(node: Node, client: Client, request: Any, *, wait_s: float, timeout_s: float) -> Any:
    """
    Call a service.

    :param wait_s: how long to wait for the server [s]; timeout_s: for its answer [s].
    :raises CommandError: nobody offers it or it does not answer.
    """
    if not client.wait_for_service(wait_s):
        raise nobody_offers(f'service {client.srv_name}', wait_s)
    return wait_for(node, client.call_async(request), timeout_s, f'an answer of {client.srv_name}')
