"""Blocking calls to a policy node: bring it up, give it instructions, hear how they ended."""

from collections.abc import Callable
from dataclasses import dataclass
import threading
import time
from typing import Any

from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from vla_msgs.action import ExecuteInstruction

from vla_policy_node.nodes.conversions import duration_message
from vla_policy_node.nodes.spinning import ask_between_callbacks

# How often a wait looks whether a process has died.
_POLL_S = 0.05
# When a question is asked once more: an answer is lost where the node that gives it does not know
# of us yet.
_ASK_AGAIN_S = 2.0

_ENDINGS = {
    value: name.lower() for name, value in (
        (name, getattr(ExecuteInstruction.Result, name)) for name in (
            'UNKNOWN', 'NOT_ACTIVE', 'INVALID_INSTRUCTION', 'NO_FRESH_IMAGE', 'DECODE_FAILED',
            'TIMEOUT', 'CANCELED', 'PREEMPTED'))}


class PolicyClientError(RuntimeError):
    """A node did not do what it was asked; the message says what and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalEnd:
    """How an instruction ended: name of the error code ('done' for none), text, chunks."""

    ending: str
    message: str
    steps: int


class PolicyClient(Node):
    """Asks a policy node to act and waits for it; spin it in another thread."""

    def __init__(
        self, name: str, check: Callable[[], None], *, policy: str = '/policy_node',
        **node_options,
    ) -> None:
        """
        Prepare the clients.

        check: called at every call and while waiting; raises when going on has become pointless.
        policy: name of the policy node.
        """
        super().__init__(name, **node_options)
        self.policy = policy
        self._check = check
        self._change_state = self.create_client(ChangeState, f'{policy}/change_state')
        self._execute = ActionClient(self, ExecuteInstruction, f'{policy}/execute_instruction')
        # The last one: who answers it knows of all the others.
        self._get_state = self.create_client(GetState, f'{policy}/get_state')

    def destroy_node(self) -> None:
        """Leave the ROS graph at once; rclpy would leave the action to a collector."""
        self._execute.destroy()
        super().destroy_node()

    def configure(self, timeout_s: float) -> None:
        """Load the policy; raises PolicyClientError when the transition is refused."""
        self._transition(Transition.TRANSITION_CONFIGURE, 'configure', timeout_s)

    def activate(self, timeout_s: float) -> None:
        """Let the policy publish; raises PolicyClientError when the transition is refused."""
        self._transition(Transition.TRANSITION_ACTIVATE, 'activate', timeout_s)

    def _transition(self, number: int, name: str, timeout_s: float) -> None:
        self.ask(self._get_state, GetState.Request(), timeout_s)
        request = ChangeState.Request(transition=Transition(id=number))
        response = self.call(self._change_state, request, timeout_s)
        if not response.success:
            raise PolicyClientError(f'the policy node refused to {name}; its log says why')

    def send_instruction(self, instruction: str, duration_s: float, timeout_s: float) -> Any:
        """Start an instruction; returns its accepted handle, PolicyClientError if refused."""
        if not self._execute.wait_for_server(timeout_s):
            raise PolicyClientError('the policy node offers no execute_instruction action')
        goal = ExecuteInstruction.Goal(
            instruction=instruction, max_duration=duration_message(duration_s))
        handle = self._wait(
            self._ask(lambda: self._execute.send_goal_async(goal)), timeout_s,
            'the policy node to an instruction')
        if not handle.accepted:
            raise PolicyClientError(f'the policy node refused the instruction {instruction!r}')
        return handle

    def cancel(self, handle: Any, timeout_s: float = 5.0) -> None:
        """Ask for the end of an instruction; one that ended by itself is no error."""
        self._wait(self._ask(handle.cancel_goal_async), timeout_s,
                   'the policy node to the end of an instruction')

    def ask_result(self, handle: Any) -> Future:
        """Return the future that is done when an instruction has ended."""
        return self._ask(handle.get_result_async)

    def result(self, future: Future, timeout_s: float = 5.0) -> GoalEnd:
        """Return how an instruction ended, from what `ask_result` returned."""
        response = self._wait(future, timeout_s, 'the policy node that an instruction ended')
        result = response.result
        ending = _ENDINGS.get(result.error_code, 'done')
        if ending == 'done' and response.status != GoalStatus.STATUS_SUCCEEDED:
            ending = 'aborted'
        return GoalEnd(ending=ending, message=result.error_msg, steps=result.steps)

    def call(self, client: Client, request: Any, timeout_s: float) -> Any:
        """Call a service; raises PolicyClientError where nobody offers or answers it in time."""
        self._await_service(client, timeout_s)
        return self._wait(client.call_async(request), timeout_s, client.srv_name)

    def ask(self, client: Client, request: Any, timeout_s: float) -> Any:
        """
        Call a service that may be called twice, repeatedly where no answer comes.

        rmw_fastrtps drops an answer when it has not discovered within 100 ms who has asked.
        """
        deadline = time.monotonic() + timeout_s
        self._await_service(client, timeout_s)
        while True:
            future = client.call_async(request)
            left_s = deadline - time.monotonic()
            try:
                return self._wait(future, min(_ASK_AGAIN_S, left_s), client.srv_name)
            except PolicyClientError:
                client.remove_pending_request(future)
                if left_s < _ASK_AGAIN_S:
                    raise

    def _await_service(self, client: Client, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not client.wait_for_service(_POLL_S):
            self._check()
            if time.monotonic() > deadline:
                raise PolicyClientError(
                    f'expected the service {client.srv_name} within {timeout_s:.0f} s, found none')

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for something to become true; raises PolicyClientError after a while."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                raise PolicyClientError(f'expected {what} within {timeout_s:.0f} s, found none')
            time.sleep(_POLL_S)

    def _ask(self, ask: Callable[[], Future]) -> Future:
        return ask_between_callbacks(self.executor, ask)

    def _wait(self, future: Future, timeout_s: float, what: str) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        # Also where the answer is there at once: another process may have died.
        self._check()
        deadline = time.monotonic() + timeout_s
        while not done.wait(_POLL_S):
            self._check()
            if time.monotonic() > deadline:
                raise PolicyClientError(
                    f'expected an answer of {what} within {timeout_s:.0f} s, got none')
        return future.result()
