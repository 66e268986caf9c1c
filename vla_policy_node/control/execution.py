"""Which deltas are due now: those of the newest chunk, or a mixture at its handover.

Every chunk is played step by step at its own period, from the moment it was accepted. Chunks are
mixed only while they predict the same moment at the same period; the newest one alone says when
motion ends and what the gripper does.
"""

from dataclasses import dataclass
import math

import numpy as np

from vla_policy_node.control.parameters import ControlParameters
from vla_policy_node.control.types import Chunk

# Bounds the work of one tick however fast chunks come.
MOST_CHUNKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The motion due now.

    parts: weights summing to 1, each with its delta (6,): translation [m], rotation vector [rad].
    period_s: time the deltas take [s].
    gripper: opening wanted by a step that has just begun, 0 closed .. 1 open; else None.
    """

    parts: tuple[tuple[float, np.ndarray], ...]
    period_s: float
    gripper: float | None


@dataclass(frozen=True, slots=True)
class _Run:
    chunk: Chunk
    start_s: float
    received_s: float

    def step(self, now_mono_s: float) -> int:
        return max(0, int((now_mono_s - self.start_s) / self.chunk.period_s))

    def too_old(self, now_ros_s: float, now_mono_s: float, timeout_s: float) -> bool:
        return (now_ros_s - self.chunk.observation_stamp_s > timeout_s
                or now_mono_s - self.received_s > timeout_s)

    def predicts(self, now_mono_s: float) -> bool:
        step = self.step(now_mono_s)
        return step < len(self.chunk.deltas) and not any(self.chunk.terminate[:step + 1])


class Execution:
    """Plays accepted chunks."""

    def __init__(self, parameters: ControlParameters) -> None:
        """Start with nothing to play."""
        self._parameters = parameters
        self._runs: list[_Run] = []
        self._gripper_step = -1

    @property
    def running(self) -> bool:
        """Whether there is a chunk to play."""
        return bool(self._runs)

    def take(self, chunk: Chunk, now_mono_s: float) -> None:
        """Play a chunk from now on; it replaces the rest of older ones or is mixed with them."""
        received_s = now_mono_s
        if chunk.received_mono_s is not None:
            received_s = min(now_mono_s, chunk.received_mono_s)
        older = [] if self._parameters.chunk_handover == 'replace' else [
            run for run in self._runs[:MOST_CHUNKS - 1]
            if run.chunk.period_s == chunk.period_s]
        self._runs = [_Run(chunk, now_mono_s, received_s), *older]
        self._gripper_step = -1

    def drop(self) -> None:
        """Forget every chunk: nothing is played after a pause."""
        self._runs = []

    def too_old(self, now_ros_s: float, now_mono_s: float) -> bool:
        """Tell whether the newest chunk has outlived the timeout, by observation or receipt."""
        return self._runs[0].too_old(now_ros_s, now_mono_s, self._parameters.command_timeout_s)

    def end(self, now_mono_s: float) -> str:
        """Return why the newest chunk has nothing more to do, '' while it has."""
        run, chunk = self._runs[0], self._runs[0].chunk
        length_s = len(chunk.deltas) * chunk.period_s
        if now_mono_s - run.start_s > length_s + self._parameters.overrun_s:
            return 'the chunk is finished and no newer one came'
        if any(chunk.terminate[:run.step(now_mono_s) + 1]):
            return 'the policy considers the task done'
        return ''

    def due(self, now_ros_s: float, now_mono_s: float) -> Due:
        """Return what the chunks want now; call after `too_old` and `end`."""
        newest = self._runs[0]
        timeout_s = self._parameters.command_timeout_s
        self._runs[1:] = [run for run in self._runs[1:] if run.predicts(now_mono_s)
                          and not run.too_old(now_ros_s, now_mono_s, timeout_s)]
        step = min(newest.step(now_mono_s), len(newest.chunk.deltas) - 1)
        gripper = None
        if step != self._gripper_step:
            self._gripper_step = step
            gripper = float(newest.chunk.deltas[step, 6])
        return Due(parts=self._mixture(step, now_mono_s), period_s=newest.chunk.period_s,
                   gripper=gripper)

    def _mixture(self, step: int, now_mono_s: float) -> tuple[tuple[float, np.ndarray], ...]:
        deltas = [self._runs[0].chunk.deltas[step, :6]]
        deltas += [run.chunk.deltas[run.step(now_mono_s), :6] for run in self._runs[1:]]
        if len(deltas) == 1:
            return ((1.0, deltas[0]),)
        weights = np.array(self._weights(now_mono_s))
        return tuple(zip((weights / weights.sum()).tolist(), deltas, strict=True))

    def _weights(self, now_mono_s: float) -> list[float]:
        """Return the weight of every chunk, newest first, not all 0."""
        if self._parameters.chunk_handover == 'ensemble':
            decay = self._parameters.ensemble_decay
            return [math.exp(-decay * newer) for newer in range(len(self._runs))]
        weights, left = [], 1.0
        for run in self._runs[:-1]:
            share = min(1.0, (now_mono_s - run.start_s) / self._parameters.blend_s)
            weights.append(left * share)
            left -= weights[-1]
        return [*weights, left]
