"""A camera that does what it is told, stamps and all."""

from collections.abc import Callable
from collections.abc import Sequence
import threading
import time

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vla_policy_node.nodes.conversions import time_message

TOPIC = '/fault_camera/image'
RATE_HZ = 30.0
_SIZE = (48, 64)

# (number of the period, time now [ns]) -> (stamp [ns], grey level) of every frame to send.
Behaviour = Callable[[int, int], Sequence[tuple[int, int]]]


def good(number: int, now_ns: int) -> list[tuple[int, int]]:
    """Behave as a camera should."""
    return [(now_ns, number % 256)]


class Camera:
    """Publishes from a thread of its own at 30 Hz; a context manager."""

    def __init__(self, node: Node, now_ns: Callable[[], int]) -> None:
        """Advertise the topic; now_ns: the clock of the stamps [ns]."""
        self._now_ns = now_ns
        self._publisher = node.create_publisher(
            Image, TOPIC, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._behaviour: Behaviour = good
        self._thread = threading.Thread(target=self._run, name='camera', daemon=True)

    def __enter__(self) -> 'Camera':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def behave(self, behaviour: Behaviour) -> float:
        """Behave differently from now on; return the time now, by the system's clock [s]."""
        with self._lock:
            self._behaviour = behaviour
            return time.time()

    def _run(self) -> None:
        number, due_s = 0, time.monotonic()
        while not self._stopping.is_set():
            with self._lock:
                for stamp_ns, level in self._behaviour(number, self._now_ns()):
                    self._publisher.publish(_image(stamp_ns, level))
            number += 1
            due_s = max(due_s + 1.0 / RATE_HZ, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))


def _image(stamp_ns: int, level: int) -> Image:
    height, width = _SIZE
    message = Image(
        header=Header(stamp=time_message(stamp_ns), frame_id='camera_optical_frame'),
        height=height, width=width, encoding='rgb8', step=3 * width)
    message.data.frombytes(np.full(3 * height * width, level, np.uint8).tobytes())
    return message
