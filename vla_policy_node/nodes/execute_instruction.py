"""The action ExecuteInstruction: one goal at a time, watched until it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
import threading
import time

from rclpy.action import ActionServer
from rclpy.action import CancelResponse
from rclpy.action import GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future
from vla_msgs.action import ExecuteInstruction

from vla_policy_node.nodes.conversions import time_s
from vla_policy_node.nodes.inference_worker import Failure
from vla_policy_node.nodes.runtime import steady_timer
from vla_policy_node.nodes.status import POLICY_TEXT
from vla_policy_node.nodes.status import RESULT_TEXT
from vla_policy_node.prompts import clean_instruction

Result = ExecuteInstruction.Result

_WATCH_PERIOD_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalSettings:
    """
    When a goal ends without the policy saying so.

    :param preempt: a new goal takes over; False refuses it while one runs.
    :param max_duration_s: for goals that name none [s].
    :param image_wait_s: longest time without a fresh frame [s].
    :param max_decode_failures: this many in a row end the goal.
    """

    preempt: bool
    max_duration_s: float
    image_wait_s: float
    max_decode_failures: int


@dataclass(slots=True)
class _Goal:
    """The goal being carried out; times are monotonic [s]."""

    handle: ServerGoalHandle
    ended: Future
    deadline_s: float
    last_fresh_s: float
    generation: int = 0
    steps: int = 0
    decode_failures: int = 0
    image_problem: str = field(default='no camera frame has come')


class InstructionServer:
    """
    Accepts goals, hands their instructions to `follow`, and reports how they end.

    Callbacks come from the executor's thread and from the inference thread, which must not hold
    a lock of its own when it calls.
    """

    def __init__(
        self, node: Node, settings: GoalSettings, *, follow: Callable[[str], int],
        rest: Callable[[], None], is_active: Callable[[], bool],
    ) -> None:
        """
        Offer ~/execute_instruction.

        :param follow: starts work on an instruction and returns its generation.
        :param rest: ends work; nothing is published after it returned.
        :param is_active: whether the node is in its active state.
        """
        self._node = node
        self._settings = settings
        self._follow = follow
        self._rest = rest
        self._is_active = is_active
        self._lock = threading.Lock()
        self._goal: _Goal | None = None
        self._accepted: dict[bytes, _Goal] = {}
        self.instruction = ''
        self._server = ActionServer(
            node, ExecuteInstruction, '~/execute_instruction', self._execute,
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel)
        self._timer = steady_timer(node, _WATCH_PERIOD_S, self._watch)
        self._timer.cancel()

    @property
    def running(self) -> bool:
        """Whether a goal is being carried out."""
        return self._goal is not None

    def stepped(self, generation: int, state: int, latency_ms: float, plan: str,
                terminate: bool) -> None:
        """Count a published chunk and tell the client; the last one ends the goal."""
        with self._lock:
            goal = self._goal
            if goal is None or goal.generation != generation:
                return
            goal.steps += 1
            goal.decode_failures = 0
            goal.last_fresh_s = time.monotonic()
        goal.handle.publish_feedback(ExecuteInstruction.Feedback(
            state=state, state_text=POLICY_TEXT[state], steps=goal.steps,
            latency_ms=latency_ms, plan=plan))
        if terminate:
            self.end(Result.NONE, 'the policy considers the task done', goal)

    def failed(self, generation: int, failure: Failure, reason: str) -> None:
        """Note a frame that gave no chunk; end the goal where that is hopeless."""
        with self._lock:
            goal = self._goal
            if goal is None or goal.generation != generation:
                return
            if failure in (Failure.STALE_IMAGE, Failure.BAD_IMAGE):
                goal.image_problem = reason
                return
            goal.last_fresh_s = time.monotonic()
            goal.decode_failures += 1
        if failure in (Failure.FAULT, Failure.OUT_OF_MEMORY):
            self.end(Result.UNKNOWN, reason, goal)
        elif failure is Failure.BAD_INSTRUCTION:
            self.end(Result.INVALID_INSTRUCTION, reason, goal)
        elif goal.decode_failures >= self._settings.max_decode_failures:
            self.end(
                Result.DECODE_FAILED, f'{goal.decode_failures} times in a row: {reason}', goal)

    def end(self, code: int, reason: str, goal: _Goal | None = None) -> None:
        """End the goal, by default whichever runs; the robot holds from here on."""
        with self._lock:
            current = self._goal
            if current is None or goal not in (None, current):
                return
            self._goal = None
            self.instruction = ''
        self._rest()
        self._timer.cancel()
        self._complete(current, code, reason)

    def destroy(self) -> None:
        """Withdraw the action; only when no executor waits for it any more."""
        self._server.destroy()

    def _complete(self, goal: _Goal, code: int, reason: str) -> None:
        self._node.get_logger().info(
            f'instruction ended after {goal.steps} chunks: {RESULT_TEXT[code]} ({reason})')
        goal.ended.set_result(
            Result(error_code=code, error_msg=reason if code else '', steps=goal.steps))
        # rclpy before Kilted looks at a pending coroutine only when something wakes it.
        if self._node.executor is not None:
            self._node.executor.wake()

    def _on_goal(self, request: ExecuteInstruction.Goal) -> GoalResponse:
        if self.running and not self._settings.preempt:
            self._node.get_logger().warning(
                f'refused {request.instruction[:80]!r}: an instruction is being carried out and'
                ' on_new_goal is refuse')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        # Goals that cannot run are accepted and aborted, because a rejection has no text.
        now_s = time.monotonic()
        duration_s = time_s(handle.request.max_duration) or self._settings.max_duration_s
        goal = _Goal(
            handle=handle, ended=Future(), deadline_s=now_s + duration_s, last_fresh_s=now_s)
        self._accepted[bytes(handle.goal_id.uuid)] = goal
        if not self._is_active():
            self._complete(goal, Result.NOT_ACTIVE, 'activate the policy node first')
        else:
            self._begin(goal)
        handle.execute()

    def _begin(self, goal: _Goal) -> None:
        try:
            instruction = clean_instruction(goal.handle.request.instruction)
        except ValueError as error:
            self._complete(goal, Result.INVALID_INSTRUCTION, str(error))
            return
        self.end(Result.PREEMPTED, 'a newer instruction took over')
        self._node.get_logger().info(f'carrying out {instruction!r}')
        with self._lock:
            self._goal = goal
            self.instruction = instruction
            goal.generation = self._follow(instruction)
        self._timer.reset()

    async def _execute(self, handle: ServerGoalHandle) -> ExecuteInstruction.Result:
        goal = self._accepted.pop(bytes(handle.goal_id.uuid))
        result = await goal.ended
        if result.error_code == Result.NONE:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goal
        if goal is not None and goal.handle == handle:
            self.end(Result.CANCELED, 'the client asked for it', goal)
        return CancelResponse.ACCEPT

    def _watch(self) -> None:
        """End a goal whose time is up or that sees nothing."""
        goal, now_s = self._goal, time.monotonic()
        if goal is None:
            return
        if now_s > goal.deadline_s:
            self.end(Result.TIMEOUT, 'max_duration is over', goal)
        elif now_s - goal.last_fresh_s > self._settings.image_wait_s:
            self.end(Result.NO_FRESH_IMAGE, (
                f'for {self._settings.image_wait_s:.1f} s: {goal.image_problem}'), goal)
