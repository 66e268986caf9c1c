"""The policy node over real DDS with a fake policy, for the tests of the nodes."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import threading

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from nodes_bench import FakePolicy
from nodes_bench import Graph
from nodes_bench import grey_image
from nodes_bench import overrides
from nodes_bench import running_graph
from nodes_bench import wait_until
from sensor_msgs.msg import Image
from vla_msgs.action import ExecuteInstruction
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus

from vla_policy_node.nodes.conversions import time_ns
from vla_policy_node.nodes.policy_node import PolicyNode

NAME = '/policy_node'


class Bench:
    """
    A policy node with a fake policy and a camera that the test may switch on.

    It is patient with frames, for on a busy machine they are late; tests of its impatience say so.
    """

    def __init__(self, graph: Graph, policy: FakePolicy, **values) -> None:
        settings = {'image_timeout_s': 10.0, 'image_wait_s': 60.0, **values}
        self.graph = graph
        self.policy = policy
        self.node = graph.add(PolicyNode(
            lambda _: policy, parameter_overrides=overrides(**settings)))
        self.chunks = graph.collect(EndEffectorDeltaChunk, f'{NAME}/action_chunk', 1)
        self.statuses = graph.collect(PolicyStatus, f'{NAME}/status')
        self.camera = graph.node.create_publisher(Image, f'{NAME}/image', 1)
        self.client = graph.action_client(ExecuteInstruction, f'{NAME}/execute_instruction')
        self.feedback: list = []
        self._filming = threading.Event()
        self._thread: threading.Thread | None = None

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.graph.call(ChangeState, f'{NAME}/change_state', request).success

    def start(self) -> 'Bench':
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)
        wait_until(lambda: self.camera.get_subscription_count() == 1)
        wait_until(self.client.server_is_ready)
        wait_until(lambda: self.graph.node.count_publishers(f'{NAME}/action_chunk') == 1)
        return self

    def state(self) -> int:
        return self.graph.call(
            GetState, f'{NAME}/get_state', GetState.Request()).current_state.id

    def show(self, level: int = 128, age_s: float = 0.0) -> None:
        self.camera.publish(grey_image(self.graph.node, level, age_s))

    def film(self, period_s: float = 0.02, **values) -> None:
        """Show frames in the background until the test ends."""
        def run():
            while not self._filming.wait(period_s):
                self.show(**values)
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def send(self, instruction: str = 'touch it', duration_s: int = 0):
        goal = ExecuteInstruction.Goal(instruction=instruction)
        goal.max_duration.sec = duration_s
        return self.graph.ask(lambda: self.client.send_goal_async(
            goal, feedback_callback=lambda message: self.feedback.append(message.feedback)))

    def result(self, handle):
        return self.graph.ask(handle.get_result_async)

    def status(self) -> PolicyStatus:
        return wait_until(lambda: self.statuses)[-1]

    def status_where(self, condition: Callable[[PolicyStatus], bool]) -> PolicyStatus:
        """Wait for the first status of which something is true, and return it."""
        return wait_until(lambda: next(filter(condition, self.statuses), None))

    def now_ns(self) -> int:
        return self.graph.node.get_clock().now().nanoseconds

    def published_after(self, time_: int) -> list[EndEffectorDeltaChunk]:
        return [chunk for chunk in self.chunks if time_ns(chunk.header.stamp) > time_]

    def stop(self) -> None:
        self._filming.set()
        if self._thread is not None:
            self._thread.join()


@contextmanager
def benches() -> Iterator[Callable[..., Bench]]:
    """Yield what makes benches in one graph; all are stopped at the end."""
    made = []
    with running_graph() as graph:
        def make(policy: FakePolicy | None = None, **values) -> Bench:
            made.append(Bench(graph, policy or FakePolicy(), **values))
            return made[-1]
        yield make
        for bench in made:
            bench.stop()
