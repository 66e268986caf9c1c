"""
An hour at full rate: memory must not grow, and latency must not drift.

The shipped policy on the simulated arm, one instruction after the other, as in the demo: camera
at 30 Hz, policy at the period of its action space, commands at 100 Hz. Every piece of the run is
held when every process is alive, chunks and commands flow and no limit is exceeded. At the end
each process is judged by its memory, and the whole by its latency.

The short form takes 20 s and a policy that costs nothing. It cannot see 1 MB/h: it looks for
growth of 2 MB or more from the second to the last quarter of 16 s, about 0.25 MB/s.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
import json
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from faults.live.environment import without_shared_memory
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.rig import SPEED_MPS
from faults.live.usage import Usage
from faults.live.usage import usage
from faults.live.usage import waited_s
from faults.parts.drift import change
from faults.parts.drift import quarters
from faults.parts.drift import slope_per_hour
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node import bringup
from vla_policy_node.control import State

PROCESSES = ('simulated_robot', 'policy_node', 'controller_node')
MOST_MB_PER_HOUR = 1.0
MOST_DRIFT = 0.05
MOST_SHORT_MB = 2.0
# As in the demo.
_EPISODE_S = 15.0
_SETTLE_S = 0.7
_FIRST_CHUNKS = 30
# A piece with fewer chunks than this share of what the period allows is no soak at full rate,
# unless the machine is to blame: its processes waited for a processor for this share of the time.
_LEAST_RATE = 0.5
_STARVED = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """
    How long and how often [s].

    :param pieces: of piece_s each; memory and latency are judged after those of the warm-up.
    """

    warm_up_pieces: int
    pieces: int
    piece_s: float
    sample_s: float
    period_s: float


FULL = Form(warm_up_pieces=10, pieces=70, piece_s=60.0, sample_s=5.0, period_s=0.2)
SHORT = Form(warm_up_pieces=1, pieces=5, piece_s=4.0, sample_s=0.25, period_s=0.04)


@dataclass(slots=True)
class Record:
    """What was seen after the warm-up; times are monotonic [s]."""

    times_s: list[float] = field(default_factory=list)
    usages: list[dict[str, Usage]] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    latencies_ms: list[tuple[float, float]] = field(default_factory=list)

    def per_chunk_ms(self, quantity: str, name: str) -> list[float]:
        """Return a time per chunk of each quarter [ms]; quantity is a field of Usage."""
        edges = np.linspace(0, len(self.times_s) - 1, 5).astype(int)
        return [1e3 * (getattr(self.usages[b][name], quantity)
                       - getattr(self.usages[a][name], quantity))
                / max(1, self.chunks[b] - self.chunks[a])
                for a, b in zip(edges[:-1], edges[1:], strict=True)]


@contextmanager
def cases(*, short: bool, scratch: Path, form: Form | None = None, **control: float,
          ) -> Iterator[Sequence[Case]]:
    """Yield the one case; `control` are numbers of the policy that costs nothing."""
    form = form or (SHORT if short else FULL)
    with rig(scratch, **{'y_mps': SPEED_MPS, **control}) as running:
        running.start_simulator()
        if short:
            # What is stale on a busy machine is looked at elsewhere.
            running.start_policy(image_timeout_s=1.0)
            running.start_controller(command_timeout_s=1.0, overrun_s=0.1)
        else:
            running.children.start('policy_node', bringup.node_process(
                'policy_node', checkpoint=str(bringup.share_directory() / 'models' / 'tabletop'),
                autostart=True).command())
            running.children.start('controller_node', bringup.node_process(
                'controller_node', dry_run=False).command(), **without_shared_memory())
        soak = Soak(running, form, short)
        soak.begin()
        # The judgement counts memory of each process, and latency.
        yield [Case(name='short' if short else 'hour',
                    injections=form.pieces + len(PROCESSES) + 1, play=soak.play)]


class Soak:
    """Plays instructions, takes samples, and judges them at the end."""

    def __init__(self, running: Rig, form: Form, short: bool) -> None:
        """Prepare; nothing has been recorded yet."""
        self._rig, self._form, self._short = running, form, short
        self._watch = running.watch
        self._episode = 0
        self._episode_ends_s = 0.0
        self._last_sequence = 0
        self._record = Record()

    def begin(self) -> None:
        """Wait until the policy is loaded and has moved the arm for a while."""
        watch = self._watch
        watch.until(lambda: watch.policy is not None and watch.policy.state == watch.policy.IDLE,
                    'an active policy node', 250.0)
        self._begin_episode()
        watch.until(lambda: watch.controller.chunks_accepted >= _FIRST_CHUNKS, 'many actions')

    def play(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Run a piece; judge the whole after the last one."""
        if number < self._form.pieces:
            tally.judge(self._piece_fault(tally), f'piece {number}')
            if number == self._form.warm_up_pieces - 1:
                self._record = Record()
        else:
            self._judge(tally)

    # Running

    def _run(self, duration_s: float) -> list[str]:
        """Run for a while, taking samples; return what the commands did wrong."""
        end_s, faults = time.monotonic() + duration_s, []
        next_s = time.monotonic()
        while (now_s := time.monotonic()) < end_s:
            self._rig.children.check()
            if now_s >= self._episode_ends_s:
                self._begin_episode()
            if now_s >= next_s:
                next_s = now_s + self._form.sample_s
                faults += motion_faults(self._watch)
                self._sample(now_s)
            time.sleep(0.02)
        return faults

    def _begin_episode(self) -> None:
        watch = self._watch
        if watch.controller.state == State.MOVING:
            # What moves must come to rest before the arm is somewhere else.
            watch.enable(False)
            time.sleep(_SETTLE_S)
        instruction = watch.reset_scene(self._episode)
        self._rig.control.y_mps *= -1.0
        watch.enable_at_last()
        watch.instruct(instruction, _EPISODE_S + 5.0)
        self._episode += 1
        self._episode_ends_s = time.monotonic() + _EPISODE_S

    def _sample(self, now_s: float) -> None:
        record, watch = self._record, self._watch
        record.times_s.append(now_s)
        record.usages.append({
            name: usage(self._rig.children.pid(name)) for name in PROCESSES})
        record.chunks.append(watch.controller.chunks_accepted)
        record.loads.append(os.getloadavg()[0])
        for received_s, status in watch.statuses:
            if status.sequence > self._last_sequence:
                self._last_sequence = status.sequence
                record.latencies_ms.append((received_s, status.camera_to_command_ms))
        watch.forget()
        print(json.dumps({
            'time_s': round(now_s, 2), 'load': record.loads[-1], 'chunks': record.chunks[-1],
            **{name: [one.rss_bytes, round(one.cpu_s, 2), round(one.waited_s, 3)]
               for name, one in record.usages[-1].items()},
            'latency_ms': round(watch.controller.camera_to_command_ms, 1)}), flush=True)

    def _piece_fault(self, tally: Tally) -> str | None:
        before, was_waiting_s = self._counts(), self._waited_s()
        faults = self._run(self._form.piece_s)
        chunks, sent = (now - was for now, was in zip(self._counts(), before, strict=True))
        if faults:
            return faults[0]
        if not chunks or not sent:
            return f'expected actions and commands, found {chunks} and {sent}'
        least = _LEAST_RATE * self._form.piece_s / self._form.period_s
        if chunks >= least:
            return None
        if self._waited_s() - was_waiting_s < _STARVED * self._form.piece_s:
            return f'expected at least {least:.0f} chunks, found {chunks}'
        tally.figures['pieces_slow_by_load'] = tally.figures.get('pieces_slow_by_load', 0) + 1
        return None

    def _waited_s(self) -> float:
        return sum(waited_s(self._rig.children.pid(name)) for name in PROCESSES)

    def _counts(self) -> tuple[int, int]:
        return self._watch.controller.chunks_accepted, self._watch.controller.commands_sent

    # Judging

    def _judge(self, tally: Tally) -> None:
        for name in PROCESSES:
            trouble, figures = memory_fault(
                self._record.times_s, [one[name].rss_bytes for one in self._record.usages],
                self._short)
            tally.figures[f'memory {name}'] = figures
            tally.judge(trouble and f'{name}: {trouble}', figures if trouble else '')
        trouble, figures = latency_fault(self._record, self._short)
        tally.figures['latency'] = figures
        tally.judge(trouble, figures if trouble else '')


def memory_fault(
    times_s: Sequence[float], rss_bytes: Sequence[int], short: bool,
) -> tuple[str | None, dict[str, float]]:
    """Return what is wrong with a process's memory, and its figures [MB], [MB/h]."""
    megabytes = np.array(rss_bytes) * 1e-6
    parts = quarters(megabytes)
    growth_mb = float(np.median(parts[3]) - np.median(parts[1]))
    figures = {'first_mb': round(float(np.median(parts[0])), 2),
               'last_mb': round(float(np.median(parts[3])), 2)}
    if short:
        figures['growth_mb'] = round(growth_mb, 3)
        trouble = growth_mb >= MOST_SHORT_MB
        return (f'memory grew by {growth_mb:.2f} MB, expected less than {MOST_SHORT_MB:g}'
                if trouble else None), figures
    slope, error = slope_per_hour(times_s, megabytes.tolist())
    figures.update(slope_mb_per_hour=round(slope, 3), error_mb_per_hour=round(error, 3))
    if slope >= MOST_MB_PER_HOUR or error >= MOST_MB_PER_HOUR:
        return (f'memory grows by {slope:.2f} +- {error:.2f} MB/h, expected less than '
                f'{MOST_MB_PER_HOUR:g}'), figures
    return None, figures


def latency_fault(record: Record, short: bool) -> tuple[str | None, dict[str, Any]]:
    """
    Return what is wrong with the latency from camera to command, and its figures.

    Where the machine kept the processes waiting longer in the last quarter than in the first, a
    drift is the machine's: that is written down, and not held against the software. In the short
    form the latency must only be known, because a p99 of 100 values is no more than their worst.
    """
    first, *_, last = quarters([value for _, value in record.latencies_ms])
    p99 = [float(np.percentile(part, 99)) for part in (first, last)]
    waits = [sum(record.per_chunk_ms('waited_s', name)[i] for name in PROCESSES)
             for i in (0, 3)]
    drift = change(*p99)
    figures = {
        'chunks': len(record.latencies_ms), 'p99_first_ms': round(p99[0], 2),
        'p99_last_ms': round(p99[1], 2), 'p50_first_ms': round(float(np.median(first)), 2),
        'p50_last_ms': round(float(np.median(last)), 2), 'drift': round(drift, 4),
        'waited_per_chunk_first_ms': round(waits[0], 3),
        'waited_per_chunk_last_ms': round(waits[1], 3),
        'cpu_per_chunk_ms': {name: [round(x, 3) for x in record.per_chunk_ms('cpu_s', name)]
                             for name in PROCESSES},
        'load_first': round(float(np.mean(quarters(record.loads)[0])), 2),
        'load_last': round(float(np.mean(quarters(record.loads)[3])), 2)}
    if short or drift < MOST_DRIFT:
        return None, figures
    figures['explained_by_load'] = change(*waits) >= MOST_DRIFT
    if figures['explained_by_load']:
        return None, figures
    return f'latency p99 drifted by {100 * drift:.1f} %, expected less than 5 %', figures
