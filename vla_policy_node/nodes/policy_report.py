"""What the policy node says about itself: state, counters, times and rate; knows no topics."""

from collections import deque
import time

from vla_msgs.msg import PolicyStatus

from vla_policy_node.nodes import diagnostics
from vla_policy_node.nodes.inference_worker import Failure
from vla_policy_node.nodes.inference_worker import InferenceWorker
from vla_policy_node.nodes.inference_worker import Step
from vla_policy_node.nodes.status import POLICY_TEXT
from vla_policy_node.policy import Policy

# Chunks that the rate is measured over, and the pause after which it counts as zero.
_RATE_CHUNKS = 10
_RATE_PAUSE_S = 3.0
# Of the layers that are not quantised, so many are named.
_NAMED_LAYERS = 3
_TIMINGS = ('preprocess', 'vision', 'prefill', 'decode', 'total')

_STATE_OF_FAILURE = {
    Failure.STALE_IMAGE: PolicyStatus.STALE_IMAGE,
    Failure.BAD_IMAGE: PolicyStatus.WAITING_FOR_IMAGE,
    # It ends the goal.
    Failure.BAD_INSTRUCTION: PolicyStatus.IDLE,
    Failure.DECODE_FAILED: PolicyStatus.DECODE_FAILED,
    Failure.FAULT: PolicyStatus.FAULT,
    Failure.OUT_OF_MEMORY: PolicyStatus.FAULT,
}

_TROUBLED = (
    PolicyStatus.STALE_IMAGE, PolicyStatus.DECODE_FAILED, PolicyStatus.WAITING_FOR_IMAGE)


def describe_model(policy: Policy) -> list[str]:
    """Return what a loaded policy says of its memory and layers, one line each."""
    lines = []
    if memory := getattr(policy, 'memory', None):
        lines.append(f'memory: {memory}')
    if vision := getattr(policy, 'quantized_vision_layers', 0):
        lines.append(f'{vision} layers of vision and projector are quantised too')
    if kept := getattr(policy, 'kept_layers', ()):
        lines.append(
            f'{len(kept)} layers are not quantised because of their shape:'
            f' {", ".join(kept[:_NAMED_LAYERS])}{", ..." if len(kept) > _NAMED_LAYERS else ""}')
    return lines


class PolicyReport:
    """Collects what happens and writes it into PolicyStatus and diagnostics."""

    def __init__(self) -> None:
        """Start as a node without a model."""
        self.state = PolicyStatus.UNCONFIGURED
        # One line; '' where nothing is wrong.
        self.problem = ''
        self._status = PolicyStatus()
        self._published_s: deque[float] = deque(maxlen=_RATE_CHUNKS)

    def loaded(self) -> None:
        """Begin anew with a model, inactive."""
        self.state = PolicyStatus.INACTIVE
        self.problem = ''
        self._status = PolicyStatus()

    def began(self) -> None:
        """Note that an instruction begins; its rate is measured afresh."""
        self.state = PolicyStatus.WAITING_FOR_IMAGE
        self.problem = ''
        self._published_s.clear()

    def stepped(self, step: Step, latency_ms: float) -> None:
        """Count a published chunk; latency_ms is from its camera frame's stamp."""
        self.state = PolicyStatus.RUNNING
        self._status.chunks_published += 1
        self._status.camera_to_chunk_ms = latency_ms
        for name in _TIMINGS:
            setattr(self._status, f'{name}_ms', float(step.chunk.timing_ms.get(name, 0.0)))
        self._published_s.append(time.monotonic())

    def failed(self, failure: Failure, problem: str) -> None:
        """Note a frame that gave no chunk."""
        self.state = _STATE_OF_FAILURE[failure]
        self.problem = problem
        if failure is Failure.DECODE_FAILED:
            self._status.decode_failures += 1

    def status(self, worker: InferenceWorker | None, instruction: str) -> PolicyStatus:
        """Return the message as of now, all but its stamp."""
        status = self._status
        status.state = self.state
        status.state_text = POLICY_TEXT[self.state] + (
            f' ({self.problem})' if self.problem and self.state != PolicyStatus.RUNNING else '')
        status.instruction = instruction
        status.rate_hz = self._rate_hz()
        if worker is not None:
            boxes = worker.mailboxes.values()
            status.frames_received = sum(box.received for box in boxes)
            status.frames_superseded = sum(box.superseded for box in boxes)
            status.frames_lost = sum(box.loss.lost for box in boxes)
            status.frames_rejected = worker.frames_refused + sum(
                box.out_of_order for box in boxes)
        return status

    def diagnose(self, policy: Policy | None) -> diagnostics.Report:
        """Return level, text and values for /diagnostics, as of the last status."""
        status = self._status
        level = diagnostics.WARN if self.state in _TROUBLED else diagnostics.OK
        if self.state == PolicyStatus.FAULT:
            level = diagnostics.ERROR
        values = {name: getattr(policy, name, '') for name in (
            'checkpoint_name', 'quantization', 'linear4bit_layers', 'quantized_vision_layers',
            'refused_layers', 'memory', 'unnorm_key')}
        values.update(
            rate_hz=f'{status.rate_hz:.2f}', camera_to_chunk_ms=f'{status.camera_to_chunk_ms:.1f}',
            inference_ms=f'{status.total_ms:.1f}', frames_received=status.frames_received,
            frames_lost=status.frames_lost, decode_failures=status.decode_failures)
        return level, status.state_text, values

    def _rate_hz(self) -> float:
        times = list(self._published_s)
        if len(times) < 2 or time.monotonic() - times[-1] > _RATE_PAUSE_S:
            return 0.0
        return (len(times) - 1) / (times[-1] - times[0])
