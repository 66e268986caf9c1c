"""Keeps what a policy node says while a recording is played, and when its pictures came."""

import threading
import time
from typing import Any

import numpy as np
from vla_msgs.msg import PolicyStatus

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.evaluation.replay.live_figures import HeardChunk
from vla_policy_node.evaluation.replay.live_figures import HeardStatus
from vla_policy_node.nodes.conversions import time_ns
from vla_policy_node.policy import ActionChunk
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import Recorded
from vla_policy_node.recordings import stamp_of

_PARTS = ('preprocess', 'vision', 'prefill', 'decode', 'total')
_COUNTERS = ('frames_received', 'frames_superseded', 'frames_rejected', 'chunks_published',
             'decode_failures')


class Listener:
    """Receives messages; safe to read from another thread."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._lock = threading.Lock()
        self._chunks: list[HeardChunk] = []
        self._statuses: list[HeardStatus] = []
        self._picture: tuple[int, float] | None = None

    def on_chunk(self, message: Any) -> None:
        """Take an EndEffectorDeltaChunk."""
        heard = HeardChunk(
            sequence=message.sequence, observation_ns=time_ns(message.observation_stamp),
            published_ns=time_ns(message.header.stamp), received_s=time.monotonic(),
            answer=_answer(message))
        with self._lock:
            self._chunks.append(heard)

    def on_status(self, message: Any) -> None:
        """Take a PolicyStatus."""
        heard = HeardStatus(
            text=message.state_text, is_stale=message.state == PolicyStatus.STALE_IMAGE,
            latency_ms=message.camera_to_chunk_ms, received_s=time.monotonic(),
            timing_ms={part: getattr(message, f'{part}_ms') for part in _PARTS},
            counters={name: getattr(message, name) for name in _COUNTERS})
        with self._lock:
            self._statuses.append(heard)

    def on_picture(self, data: bytes) -> None:
        """Take a serialised picture of the camera that sets the time."""
        with self._lock:
            self._picture = stamp_of(data), time.monotonic()

    @property
    def n_chunks(self) -> int:
        """How many chunks were heard."""
        return len(self._chunks)

    @property
    def n_statuses(self) -> int:
        """How many statuses were heard."""
        return len(self._statuses)

    def chunks(self, start: int = 0) -> list[HeardChunk]:
        """Return the chunks heard, from one of them on."""
        with self._lock:
            return self._chunks[start:]

    def statuses(self, start: int = 0) -> list[HeardStatus]:
        """Return the statuses heard, from one of them on."""
        with self._lock:
            return self._statuses[start:]

    def picture(self) -> tuple[int, float] | None:
        """Return stamp [ns] and monotonic time of receipt [s] of the newest picture, or None."""
        return self._picture


def _answer(message: Any) -> ActionChunk:
    said = read_chunk(Recorded(topic='', received_ns=0, message=message))
    token_ids = np.array(message.token_ids, np.int64)
    return ActionChunk(
        actions=said.actions, token_ids=token_ids, all_token_ids=token_ids, plan=said.plan,
        terminate=bool(said.terminate.any()),
        confidence=np.array([delta.confidence for delta in message.deltas],
                            np.float32).reshape(-1, ACTION_DIM))
