"""A /clock that runs, stands still and jumps as it is told."""

import threading
import time

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from vla_policy_node.nodes.conversions import time_message

_PERIOD_S = 0.01
# Jumps of hours back must not reach zero, which means that there is no time yet.
_START_NS = 100_000 * 1_000_000_000


class SimClock:
    """Publishes /clock at 100 Hz from a thread of its own; a context manager."""

    def __init__(self, node: Node) -> None:
        """Start at 100,000 s, running."""
        self._publisher = node.create_publisher(
            Clock, '/clock', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._lock = threading.Lock()
        self._zero_ns = time.monotonic_ns() - _START_NS
        self._paused_ns: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='clock', daemon=True)

    def __enter__(self) -> 'SimClock':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def now_ns(self) -> int:
        """Return the time that it shows [ns]."""
        with self._lock:
            return self._now_ns()

    def jump(self, by_s: float) -> float:
        """Jump forward, or back where negative; return the new time [s]."""
        with self._lock:
            self._zero_ns -= round(by_s * 1e9)
            now_ns = self._now_ns()
        self._publish(now_ns)
        return now_ns * 1e-9

    def pause(self) -> float:
        """Stand still, publishing the same time; return it [s]."""
        with self._lock:
            self._paused_ns = self._now_ns()
            return self._paused_ns * 1e-9

    def resume(self) -> None:
        """Run on from where it stood."""
        with self._lock:
            self._zero_ns = time.monotonic_ns() - self._paused_ns
            self._paused_ns = None

    def _now_ns(self) -> int:
        if self._paused_ns is not None:
            return self._paused_ns
        return time.monotonic_ns() - self._zero_ns

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            self._publish(self.now_ns())

    def _publish(self, now_ns: int) -> None:
        stamp: Time = time_message(now_ns)
        self._publisher.publish(Clock(clock=stamp))
