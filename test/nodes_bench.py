"""What the tests of the nodes share: a spinning graph, a fake policy, and messages."""

import array
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import threading
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from vla_msgs.msg import EndEffectorDelta
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.nodes.spinning import ask_between_callbacks
from vla_policy_node.nodes.spinning import SpinThread
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import Observation

SPACE = ActionSpace(
    frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.05,
    stats=NormStats(q01=np.full(7, -0.05), q99=np.full(7, 0.05), mask=np.ones(7, bool)))

# Only a failing test waits so long; a machine that builds at the same time is slow.
PATIENCE_S = 30.0


class FakePolicy:
    """
    Moves 1 cm along x per step; says in its plan how bright the image was.

    script: what the next calls of `infer` do: an exception to raise or a terminate flag; when it
    is empty they succeed. blind: the images do not reach the logits. delay_s: of each inference.
    started_s: when each step began, monotonic. `thinking` is set once a step has begun, and it
    does not end before `may_answer` is set, as it is unless a test clears it.
    """

    camera_names = ('primary',)

    def __init__(
        self, script: tuple = (), blind: bool = False, delay_s: float = 0.0,
        space: ActionSpace = SPACE,
    ) -> None:
        self.action_space = space
        self.script = list(script)
        self.blind = blind
        self.delay_s = delay_s
        self.closed = False
        self.instructions: list[str] = []
        self.started_s: list[float] = []
        self.thinking = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def action_logits(self, observation: Observation) -> np.ndarray:
        brightness = 0.0 if self.blind else observation.images['primary'].mean()
        return np.array([1.0, brightness], np.float32)

    def infer(self, observation: Observation) -> ActionChunk:
        # The self-test looks at one image before any instruction of the tests.
        is_test = observation.instruction == 'pick up the red block'
        step = False if is_test else self._step(observation.instruction)
        brightness = round(float(observation.images['primary'].mean()))
        return ActionChunk(
            actions=np.array([[0.01, 0, 0, 0, 0, 0, 1.0]]), token_ids=np.arange(7).reshape(1, 7),
            all_token_ids=np.arange(7), confidence=np.full((1, 7), 0.5, np.float32),
            plan=str(brightness), terminate=step,
            timing_ms={'total': 1.5, 'vision': 0.5})

    def _step(self, instruction: str) -> bool:
        self.started_s.append(time.monotonic())
        self.instructions.append(instruction)
        self.thinking.set()
        assert self.may_answer.wait(PATIENCE_S)
        time.sleep(self.delay_s)
        step = self.script.pop(0) if self.script else False
        if isinstance(step, Exception):
            raise step
        return step

    def answer(self, observation: Observation, max_new_tokens: int = 64) -> str:
        brightness = round(float(observation.images['primary'].mean()))
        return f'{observation.instruction} {brightness} {max_new_tokens}'

    def close(self) -> None:
        self.closed = True


class Graph:
    """
    Nodes spinning in one background thread, and a node of the test's own.

    Clients live as long as the graph: rclpy must not destroy what the executor waits for. And
    everything is destroyed at the end, not left to the garbage collector. A participant that
    lingers after its test is now and then discovered by halves, and as long as there is one more
    reader of a service's requests than writers of its replies, rmw_fastrtps calls the service
    unavailable.
    """

    def __init__(self) -> None:
        self._spinning = SpinThread()
        self._nodes: list[Any] = []
        self._clients: dict[str, Any] = {}
        self._action_clients: list[ActionClient] = []
        self.node = self.add(Node('tester'))
        self._spinning.start()

    def add(self, node: Any) -> Any:
        self._nodes.append(node)
        self._spinning.executor.add_node(node)
        return node

    def stop_spinning(self, node: Any) -> None:
        """Bring no more callbacks to a node, as when its process is about to end."""
        self._spinning.executor.remove_node(node)

    def collect(self, kind: type, topic: str, qos: Any = 10) -> list:
        """Return a list that the messages of a topic are appended to."""
        messages: list = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def action_client(self, kind: type, name: str) -> ActionClient:
        self._action_clients.append(ActionClient(self.node, kind, name))
        return self._action_clients[-1]

    def call(self, kind: type, name: str, request: Any, timeout_s: float = PATIENCE_S) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        wait_until(client.service_is_ready, timeout_s, f'nobody offers {name}')
        return self.result(client.call_async(request), timeout_s)

    def ask(self, ask: Callable[[], Any]) -> Any:
        """Return the answer to what an action client asks."""
        return self.result(ask_between_callbacks(self._spinning.executor, ask))

    def result(self, future: Any, timeout_s: float = PATIENCE_S) -> Any:
        wait_until(future.done, timeout_s)
        return future.result()

    def close(self) -> None:
        self._spinning.stop()
        for client in self._action_clients:
            client.destroy()
        for node in self._nodes:
            if hasattr(node, 'close'):
                node.close()
            node.destroy_node()
        assert self._spinning.failure is None, self._spinning.failure


@contextmanager
def running_graph() -> Iterator[Graph]:
    rclpy.init()
    graph = Graph()
    try:
        yield graph
    finally:
        graph.close()
        rclpy.try_shutdown()


def wait_until(
    condition: Callable[[], Any], timeout_s: float = PATIENCE_S, failure: str = 'waited in vain',
) -> Any:
    """Return the first true value of a condition; fail after a while."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, failure
        time.sleep(0.005)
    return value


def overrides(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


def stamp(node: Node, age_s: float = 0.0) -> Any:
    now = node.get_clock().now().nanoseconds - round(age_s * 1e9)
    return rclpy.time.Time(nanoseconds=now).to_msg()


def grey_image(node: Node, level: int = 128, age_s: float = 0.0) -> Image:
    """Return a 64x48 rgb8 image of one grey level."""
    message = Image(height=48, width=64, step=192, encoding='rgb8')
    message.data = array.array('B', bytes([level]) * (48 * 192))
    message.header.stamp = stamp(node, age_s)
    return message


def delta_chunk(
    node: Node, sequence: int, x_m: float = 0.01, age_s: float = 0.0, frame: str = 'base',
    gripper: float = 1.0, period_s: float = 0.2,
) -> EndEffectorDeltaChunk:
    """Return a chunk of one delta along x."""
    delta = EndEffectorDelta(gripper=gripper)
    delta.translation.x = x_m
    message = EndEffectorDeltaChunk(
        sequence=sequence, deltas=[delta], observation_stamp=stamp(node, age_s))
    message.period.nanosec = round(period_s * 1e9)
    message.header.frame_id = frame
    message.header.stamp = stamp(node)
    return message
