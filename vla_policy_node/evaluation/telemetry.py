"""
Counts and timings of a live run, from the messages that the nodes publish.

Knows nothing of rclpy: messages are duck-typed, times are seconds on the wall clock.
"""

from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np

from vla_policy_node.evaluation.statistics import percentiles

# Counters of vla_msgs/PolicyStatus that are accounted for, by their name in the summary.
_FRAME_COUNTERS = {
    'received': 'frames_received',
    'superseded': 'frames_superseded',
    'rejected': 'frames_rejected',
}
_MODEL_TIMES = ('preprocess_ms', 'vision_ms', 'prefill_ms', 'decode_ms', 'total_ms')


class Telemetry:
    """Collects what one run needs; every method takes one message."""

    def __init__(self) -> None:
        """Start without any measurement."""
        self.latencies_ms: dict[int, float] = {}
        self.model_ms: dict[str, list[float]] = {name: [] for name in _MODEL_TIMES}
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._chunk_intervals_s: list[float] = []
        self._last_chunk_s: float | None = None
        self._policy: dict[str, int] = {}
        self._controller: dict[str, int | str] = {}
        # (time, counters of the policy node) and (time, frames published by the camera).
        self._counted: list[tuple[float, dict[str, int]]] = []
        self._published: list[tuple[float, int]] = []

    def on_controller_status(self, status: object) -> None:
        """Keep the latency of each accepted chunk once and the latest counters."""
        if status.chunks_accepted and status.camera_to_command_ms > 0:
            self.latencies_ms.setdefault(status.sequence, status.camera_to_command_ms)
        self._controller = {
            'accepted': status.chunks_accepted,
            'rejected': status.chunks_rejected,
            'last_rejection': status.last_rejection,
            'commands_sent': status.commands_sent,
            'commands_clamped': status.commands_clamped,
        }

    def on_policy_status(self, status: object, received_s: float) -> None:
        """Keep the counters and, once per chunk, the model's times."""
        counters = {name: getattr(status, field) for name, field in _FRAME_COUNTERS.items()}
        counters['chunks'] = status.chunks_published
        counters['decode_failures'] = status.decode_failures
        if status.chunks_published > self._policy.get('chunks', 0):
            for name, values in self.model_ms.items():
                values.append(getattr(status, name))
        self._policy = counters
        # What the camera published while the policy was being loaded is not lost.
        if status.state != status.UNCONFIGURED:
            self._counted.append((received_s, counters))

    def on_chunk(self, received_s: float) -> None:
        """Note that a chunk arrived at a monotonic time."""
        if self._last_chunk_s is not None:
            self._chunk_intervals_s.append(received_s - self._last_chunk_s)
        self._last_chunk_s = received_s

    def episode_ended(self) -> None:
        """Keep the pause until the next episode out of the rate."""
        self._last_chunk_s = None

    def on_diagnostics(
        self, statuses: Iterable[tuple[str, Mapping[str, str]]], received_s: float,
    ) -> None:
        """Keep the latest key values per name, and how many frames were published when."""
        for name, values in statuses:
            self.diagnostics.setdefault(name, {}).update(values)
            if 'frames_published' in values:
                self._published.append((received_s, int(values['frames_published'])))

    def value(self, key: str) -> str | None:
        """Return the latest diagnostic value of a key whichever node reported one, else None."""
        for values in self.diagnostics.values():
            if values.get(key):
                return values[key]
        return None

    def loop_jitter_ms(self) -> dict[str, float | None]:
        """
        Return by how much the controller's period deviates [ms], by its own account.

        p99 is of its last 6,000 periods, the worst since it started; None: it said nothing.
        """
        said = {name: self.value(f'period_jitter_{name}_ms') for name in ('p99', 'worst')}
        return {name: None if value is None else float(value) for name, value in said.items()}

    def policy_hz(self) -> float | None:
        """Return chunks per second while an instruction was running; None without two."""
        total_s = sum(self._chunk_intervals_s)
        return len(self._chunk_intervals_s) / total_s if total_s > 0 else None

    def frames(self) -> dict[str, int | None]:
        """
        Return frames published / received / dropped / superseded / rejected; None: unknown.

        Two processes count, so the policy's counters are interpolated to the moments at which
        the camera said how many it had published; that is exact to about one frame.
        """
        names = ('published', 'received', 'dropped', 'superseded', 'rejected')
        times = [time_s for time_s, _ in self._counted]
        known = [item for item in self._published if times and times[0] <= item[0] <= times[-1]]
        if len(known) < 2:
            return dict.fromkeys(names)
        (first_s, first), (last_s, last) = known[0], known[-1]
        counts = {'published': last - first}
        for name in _FRAME_COUNTERS:
            values = [counters[name] for _, counters in self._counted]
            counts[name] = round(float(np.diff(np.interp([first_s, last_s], times, values))[0]))
        counts['dropped'] = max(0, counts['published'] - counts['received'])
        return {name: counts[name] for name in names}

    def summary(self) -> dict[str, object]:
        """Return the measured part of summary.json."""
        chunks = {'published': self._policy.get('chunks'),
                  'decode_failures': self._policy.get('decode_failures'), **self._controller}
        return {
            'policy_hz': self.policy_hz(),
            'latency_ms': percentiles(list(self.latencies_ms.values())),
            'latency_samples': len(self.latencies_ms),
            'model_ms': {name.removesuffix('_ms'): percentiles(values)
                         for name, values in self.model_ms.items()},
            'loop_jitter_ms': self.loop_jitter_ms(),
            'frames': self.frames(),
            'chunks': chunks,
        }
