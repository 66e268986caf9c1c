"""
The thread that owns the policy: loads it, runs it on the newest frame, answers, closes it.

Knows nothing of rclpy. A frame wakes it through a condition; nothing is polled.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from functools import partial
import gc
import threading
import time
from typing import Any
from typing import Protocol

from vla_policy_node.images import ImageError
from vla_policy_node.images import to_rgb
from vla_policy_node.nodes.mailbox import Frame
from vla_policy_node.nodes.mailbox import Mailbox
from vla_policy_node.policy.failures import is_out_of_memory
from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import Observation
from vla_policy_node.policy.types import Policy
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.prompts import InstructionError

PRIMARY = 'primary'


class Failure(Enum):
    """Why a frame gave no chunk."""

    STALE_IMAGE = 'stale image'
    BAD_IMAGE = 'bad image'
    BAD_INSTRUCTION = 'bad instruction'
    DECODE_FAILED = 'decode failed'
    FAULT = 'fault'
    OUT_OF_MEMORY = 'out of memory'


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One inference.

    :param generation: which call of `follow` it was made for.
    :param frame: of the first camera, that the chunk was computed from.
    """

    generation: int
    chunk: ActionChunk
    frame: Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """
    What the worker keeps to.

    :param period_s: least time between the starts of two inferences [s]; 0 takes the period of
        the policy's action space.
    :param image_timeout_s: greatest age of a frame by its stamp [s].
    :param max_clock_skew_s: how far in the future a frame's stamp may lie [s].
    """

    period_s: float
    image_timeout_s: float
    max_clock_skew_s: float


class WorkerListener(Protocol):
    """What the worker tells, each from its own thread."""

    def publish(self, step: Step) -> None:
        """Send a chunk; called only while its instruction is still wanted."""

    def stepped(self, step: Step) -> None:
        """Note that a chunk was published."""

    def failed(self, generation: int, failure: Failure, reason: str) -> None:
        """
        Note that a frame gave no chunk.

        After OUT_OF_MEMORY, which a question may cause as well, the worker has ended.
        """


class InferenceWorker:
    """Runs one instruction at a time on the newest frames; see the module's docstring."""

    def __init__(
        self, load: Callable[[], Policy], listener: WorkerListener, settings: WorkerSettings,
        now_ns: Callable[[], int],
    ) -> None:
        """
        Prepare; `start` begins.

        :param load: returns the policy, tested and warm; runs in the worker's thread.
        :param now_ns: the clock of the stamps [ns].
        """
        self._load = load
        self._listener = listener
        self._settings = settings
        self._now_ns = now_ns
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._ready: Future[Policy] = Future()
        self._instruction: str | None = None
        self._generation = 0
        self._questions: deque[Callable[[Policy], None]] = deque()
        self._stopping = False
        self._due_s = 0.0
        self._period_s = settings.period_s
        self.cameras: tuple[str, ...] = ()
        self.mailboxes: Mapping[str, Mailbox] = {}
        self.frames_refused = 0

    def start(self) -> Policy:
        """Load the policy and return it; raises what loading raised."""
        self._thread.start()
        return self._ready.result()

    def stop(self) -> None:
        """End after the inference in progress, which is not published, and close the policy."""
        with self._wake:
            self._stopping = True
            self._instruction = None
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, camera: str, frame: Frame) -> int:
        """Store a frame of a camera; return how many are missing before it."""
        with self._wake:
            missing = self.mailboxes[camera].put(frame)
            self._wake.notify()
        return missing

    def follow(self, instruction: str) -> int:
        """Work on an instruction from the next frame on; return its generation."""
        with self._wake:
            self._instruction = instruction
            self._generation += 1
            self._due_s = 0.0
            # What was seen before the instruction may show an earlier scene.
            for mailbox in self.mailboxes.values():
                mailbox.take()
            self._wake.notify()
            return self._generation

    def rest(self) -> None:
        """Stop working; when this returns, nothing more is published."""
        with self._wake:
            self._instruction = None

    def ask(self, question: str, max_new_tokens: int) -> 'Future[tuple[str, int]]':
        """Return the coming answer about the newest frames and the stamp [ns] it is about."""
        answer: Future[tuple[str, int]] = Future()
        with self._wake:
            if self._stopping:
                answer.set_exception(_deactivated())
                return answer
            self._questions.append(partial(self._answer, answer, question, max_new_tokens))
            self._wake.notify()
        return answer

    def _run(self) -> None:
        try:
            policy = self._load()
            self._adopt(policy)
        except Exception as error:
            self._ready.set_exception(error)
            return
        # Looking through the half million objects of a loaded model stops all threads for 0.3 s,
        # so collections leave them out until memory is given back.
        gc.collect()
        gc.freeze()
        self._ready.set_result(policy)
        try:
            while (work := self._next_work()) is not None:
                work(policy)
        finally:
            policy.close()

    def _adopt(self, policy: Policy) -> None:
        self.cameras = tuple(getattr(policy, 'camera_names', (PRIMARY,)))
        self.mailboxes = {name: Mailbox() for name in self.cameras}
        self._period_s = self._settings.period_s or policy.action_space.period_s

    def _next_work(self) -> Callable[[Policy], None] | None:
        """Wait for a question or for a frame that is due; None when stopping."""
        with self._wake:
            while not self._stopping:
                if self._questions:
                    return self._questions.popleft()
                pause_s = None
                if self._instruction is not None and self.mailboxes[self.cameras[0]].has_new:
                    pause_s = self._pause_s(time.monotonic())
                    if pause_s <= 0:
                        return partial(
                            self._step, self._instruction, self._generation, self._take_frames())
                self._wake.wait(pause_s)
            for question in self._questions:
                question(None)
        return None

    def _pause_s(self, now_s: float) -> float:
        """
        Return how long to wait before the newest frame is used [s]; 0 or less: use it now.

        The rhythm bends by half a frame to start on a frame that has just come: at 15 Hz the
        frame that lies there when a step is due is 33 ms old on average.
        """
        mailbox = self.mailboxes[self.cameras[0]]
        slack_s = 0.5e-9 * mailbox.loss.spacing_ns
        age_s = now_s - mailbox.newest.received_monotonic_s
        if now_s >= self._due_s - slack_s and age_s > slack_s:
            return self._due_s + slack_s - now_s
        return self._due_s - slack_s - now_s

    def _take_frames(self) -> dict[str, Frame | None]:
        now_s = time.monotonic()
        self._due_s += self._period_s
        if self._due_s <= now_s:
            # Whoever is late by a whole period starts a new rhythm instead of catching up.
            self._due_s = now_s + self._period_s
        return {name: mailbox.take() for name, mailbox in self.mailboxes.items()}

    def _step(
        self, instruction: str, generation: int, frames: Mapping[str, Frame | None],
        policy: Policy,
    ) -> None:
        try:
            observation = Observation(
                images=self._fresh_images(frames), instruction=instruction)
            chunk = policy.infer(observation)
        except _UnusableFrameError as error:
            self._fail(generation, error.failure, str(error))
        except InstructionError as error:
            self._fail(generation, Failure.BAD_INSTRUCTION, str(error))
        except DecodeError as error:
            self._fail(generation, Failure.DECODE_FAILED, str(error))
        except Exception as error:
            if is_out_of_memory(error):
                self._end_without_memory(generation, one_line(error))
            else:
                self._fail(generation, Failure.FAULT, _fault(error))
        else:
            self._hand_over(Step(
                generation=generation, chunk=chunk, frame=frames[self.cameras[0]]))

    def _hand_over(self, step: Step) -> None:
        with self._wake:
            # Under the lock, so that nothing is published once `rest` has returned.
            wanted = self._is_wanted(step.generation)
            if wanted:
                self._listener.publish(step)
        if wanted:
            self._listener.stepped(step)

    def _fail(self, generation: int, failure: Failure, reason: str) -> None:
        with self._wake:
            wanted = self._is_wanted(generation)
        if wanted:
            self._listener.failed(generation, failure, reason)

    def _end_without_memory(self, generation: int, reason: str) -> None:
        """Do no more work, so that the policy is closed, and say why."""
        with self._wake:
            self._stopping = True
            self._instruction = None
        self._listener.failed(generation, Failure.OUT_OF_MEMORY, reason)

    def _is_wanted(self, generation: int) -> bool:
        return self._instruction is not None and self._generation == generation

    def _fresh_images(self, frames: Mapping[str, Frame | None]) -> dict[str, Any]:
        return {name: self._fresh_image(name, frame) for name, frame in frames.items()}

    def _fresh_image(self, name: str, frame: Frame | None) -> Any:
        if frame is None:
            raise _UnusableFrameError(Failure.STALE_IMAGE, f'camera {name}: no frame has come yet')
        age_s = (self._now_ns() - frame.stamp_ns) * 1e-9
        if age_s > self._settings.image_timeout_s:
            raise _UnusableFrameError(Failure.STALE_IMAGE, (
                f'camera {name}: expected a frame at most'
                f' {self._settings.image_timeout_s:.3f} s old, found {age_s:.3f} s'))
        if -age_s > self._settings.max_clock_skew_s:
            raise _UnusableFrameError(Failure.STALE_IMAGE, (
                f'camera {name}: expected a stamp at most'
                f' {self._settings.max_clock_skew_s:.3f} s in the future, found {-age_s:.3f} s;'
                ' synchronise the clocks'))
        try:
            return to_rgb(frame.message)
        except ImageError as error:
            self.frames_refused += 1
            raise _UnusableFrameError(Failure.BAD_IMAGE, f'camera {name}: {error}') from error

    def _answer(
        self, answer: 'Future[tuple[str, int]]', question: str, max_new_tokens: int,
        policy: Policy | None,
    ) -> None:
        if policy is None:
            answer.set_exception(_deactivated())
            return
        frames = {name: mailbox.newest for name, mailbox in self.mailboxes.items()}
        try:
            observation = Observation(images=self._fresh_images(frames), instruction=question)
            text = policy.answer(observation, max_new_tokens)
        except Exception as error:
            answer.set_exception(error)
            if is_out_of_memory(error):
                self._end_without_memory(self._generation, one_line(error))
        else:
            answer.set_result((text, frames[self.cameras[0]].stamp_ns))


def _deactivated() -> RuntimeError:
    return RuntimeError('the policy node was deactivated')


def _fault(error: Exception) -> str:
    """Return an error as one line; of those that are no mistake of a user's, with its class."""
    text = str(error)
    return text if isinstance(error, PolicyError) and text else f'{type(error).__name__}: {text}'


class _UnusableFrameError(Exception):
    """A frame that no action is computed from."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
