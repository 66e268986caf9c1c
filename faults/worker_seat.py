"""The inference worker of the policy node, with a policy whose answers are given."""

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty
from queue import SimpleQueue
import time
from types import SimpleNamespace
from typing import Any

from vla_policy_node.nodes.inference_worker import Failure
from vla_policy_node.nodes.inference_worker import InferenceWorker
from vla_policy_node.nodes.inference_worker import Step
from vla_policy_node.nodes.inference_worker import WorkerSettings
from vla_policy_node.nodes.mailbox import Frame

_PATIENCE_S = 20.0
_STAMP_STEP_NS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What came of a frame: a chunk or a failure.

    :param published: how many chunks were published, before this outcome was told.
    """

    chunk: Any = None
    failure: Failure | None = None
    reason: str = ''
    published: int = 0


class WorkerSeat:
    """
    Feeds frames to a worker and waits for what comes of each; a context manager.

    :param infer: what the policy makes of an Observation; may raise as policies do.
    """

    def __init__(self, infer: Callable[[Any], Any]) -> None:
        policy = SimpleNamespace(
            camera_names=('primary',), action_space=SimpleNamespace(period_s=1e-6),
            infer=infer, close=lambda: None)
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._published = 0
        self._stamp_ns = 1_000_000_000
        # The frame is always a fresh one: ages are no matter here.
        self._worker = InferenceWorker(
            lambda: policy, self,
            WorkerSettings(period_s=1e-9, image_timeout_s=10.0, max_clock_skew_s=10.0),
            lambda: self._stamp_ns)

    def __enter__(self) -> 'WorkerSeat':
        self._worker.start()
        self._worker.follow('pick up the red block')
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()

    def show(self, message: Any) -> Outcome:
        """Let the worker see a camera message; return what came of it. TimeoutError: nothing."""
        self._published = 0
        self._stamp_ns += _STAMP_STEP_NS
        self._worker.put('primary', Frame(
            message=message, stamp_ns=self._stamp_ns, received_monotonic_s=time.monotonic()))
        try:
            return self._outcomes.get(timeout=_PATIENCE_S)
        except Empty:
            raise TimeoutError(f'no word of a frame within {_PATIENCE_S:g} s') from None

    # Called by the worker, from its thread

    def publish(self, step: Step) -> None:
        """Count a chunk."""
        self._published += 1

    def stepped(self, step: Step) -> None:
        """Pass on a chunk."""
        self._outcomes.put(Outcome(chunk=step.chunk, published=self._published))

    def failed(self, generation: int, failure: Failure, reason: str) -> None:
        """Pass on a failure."""
        self._outcomes.put(
            Outcome(failure=failure, reason=reason, published=self._published))
