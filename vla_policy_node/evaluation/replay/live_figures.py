"""
What a policy node was heard to say while a recording was played, as figures of its own.

Knows nothing of ROS: messages were taken apart before. The node's clock is the one its stamps are
of: the wall clock, or with simulated time that of the recording.
"""

from collections import Counter
from collections import defaultdict
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from itertools import pairwise

import numpy as np

from vla_policy_node.policy import ActionChunk

WALL_CLOCK = 'wall'
RECORDING_CLOCK = 'recording'

# Why playback ended early when the user stopped it.
INTERRUPTED = 'interrupted'

# So many statuses tell how a node counts.
_ENOUGH_STATUSES = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeardChunk:
    """
    One chunk message.

    observation_ns, published_ns: on the node's clock. received_s: monotonic. answer: what it
    says, without times.
    """

    sequence: int
    observation_ns: int
    published_ns: int
    received_s: float
    answer: ActionChunk

    @property
    def latency_ms(self) -> float:
        """From the stamp of the camera frame to the publication, on the node's clock."""
        return (self.published_ns - self.observation_ns) * 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeardStatus:
    """
    One status message.

    latency_ms: camera_to_chunk_ms of the latest chunk. timing_ms: parts of its inference.
    is_stale: whether the newest frame was too old. counters: those since the node was configured,
    by name. received_s: monotonic.
    """

    text: str
    is_stale: bool
    latency_ms: float
    timing_ms: Mapping[str, float]
    counters: Mapping[str, int]
    received_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Playback:
    """
    How a recording was played.

    clock: WALL_CLOCK or RECORDING_CLOCK, which the node's stamps are of. rate: seconds of the
    recording per second, None where another player decided it. frames_published: None where that
    is not known. publish_delay_ms: how late frames were published. ended_early: why, None where
    all of it was played. span_s: monotonic times of the first and the last frame where the node
    hears other frames too, None where it does not.
    """

    clock: str
    rate: float | None
    frames_published: int | None
    publish_delay_ms: Sequence[float] = ()
    ended_early: str | None = None
    span_s: tuple[float, float] | None = None


def timings(
    chunks: Sequence[HeardChunk], statuses: Sequence[HeardStatus],
) -> list[Mapping[str, float]]:
    """
    Return the times [ms] of each chunk's inference, {} where no status told them.

    A node sends a status behind every chunk, and others now and then. One belongs to a chunk when
    its count of chunks and its latency do. Counts begin when a node is configured and sequences
    when it is started, so between the two is a constant.
    """
    between = _sequence_less_count(chunks, statuses)
    by_sequence = {chunk.sequence: chunk for chunk in chunks}
    found = {}
    for status in statuses:
        chunk = by_sequence.get(status.counters['chunks_published'] + between)
        if chunk is not None and chunk.latency_ms == status.latency_ms:
            # Of several statuses the last one: the first may be sent while it is filled in.
            found[chunk.sequence] = status.timing_ms
    return [found.get(chunk.sequence, {}) for chunk in chunks]


def _sequence_less_count(
    chunks: Sequence[HeardChunk], statuses: Sequence[HeardStatus],
) -> int:
    """Return what most pairs of equal latency agree on; 0 without any."""
    by_latency = defaultdict(list)
    for chunk in chunks:
        by_latency[chunk.latency_ms].append(chunk.sequence)
    telling = (status for status in statuses if status.latency_ms in by_latency)
    votes = Counter(sequence - status.counters['chunks_published']
                    for status in islice(telling, _ENOUGH_STATUSES)
                    for sequence in by_latency[status.latency_ms])
    return votes.most_common(1)[0][0] if votes else 0


def live_figures(
    chunks: Sequence[Sequence[HeardChunk]], statuses: Sequence[HeardStatus],
    timing_ms: Sequence[Mapping[str, float]], playback: Playback,
    last_frames: Collection[int] = (),
) -> dict[str, object]:
    """
    Return what `Replayed.live` holds: numbers, texts, and arrays of which percentiles are told.

    chunks: of each episode. statuses: from before the first frame on to after the last one.
    timing_ms: times of each chunk, see `timings`. last_frames: stamps [ns] of frames behind which
    no other came, so that the node may have kept them for longer than it would a stream's; answers
    to these are left out of the arrays.

    'ended_early': why, or None. 'clock': which one the first three arrays are measured on.
    'playback_rate': seconds of the recording per second. 'rate_hz': chunks per second that
    passed while an instruction was carried out. Of all cameras: 'frames_published', '_received',
    '_dropped' (the difference), '_superseded', '_rejected'. 'chunks', 'decode_failures'.
    'stale_spells': how often the node found the newest frame too old. Arrays [ms]:
    'stamp_to_chunk_ms'; 'frame_age_ms', how old a frame was when its inference began;
    'action_age_ms', how old the frame behind an action was when the next action came;
    'publish_delay_ms', how late the player was.
    """
    flat = [chunk for episode in chunks for chunk in episode]
    streamed = [chunk.observation_ns not in last_frames for chunk in flat]
    counted = _counted(statuses, playback.span_s)
    passed_s = [(episode[-1].published_ns - episode[0].published_ns) * 1e-9 for episode in chunks
                if episode]
    waited_s = [episode[-1].received_s - episode[0].received_s for episode in chunks if episode]
    rate = playback.rate or _ratio(sum(passed_s), sum(waited_s))
    clock_rate = rate if playback.clock == RECORDING_CLOCK else 1.0
    return {
        'ended_early': playback.ended_early,
        'clock': playback.clock,
        'playback_rate': rate,
        'rate_hz': _ratio(len(flat) - len(waited_s), sum(waited_s)),
        **_frames(playback.frames_published, counted),
        'chunks': len(flat),
        'decode_failures': counted['decode_failures'],
        'stale_spells': sum(not before.is_stale and after.is_stale
                            for before, after in pairwise(statuses)),
        'stamp_to_chunk_ms': np.array([chunk.latency_ms for chunk in flat])[streamed],
        'frame_age_ms': np.array([
            chunk.latency_ms - clock_rate * times['total']
            for chunk, times, counts in zip(flat, timing_ms, streamed, strict=True)
            if counts and clock_rate and 'total' in times]),
        'action_age_ms': np.array([
            (after.published_ns - before.observation_ns) * 1e-6
            for episode in chunks for before, after in pairwise(episode)
            if after.observation_ns not in last_frames]),
        'publish_delay_ms': np.array(playback.publish_delay_ms),
    }


def _counted(
    statuses: Sequence[HeardStatus], span_s: tuple[float, float] | None,
) -> Counter[str]:
    """Return what the counters grew by, in all or within a span, between statuses on a line."""
    if not statuses:
        return Counter()
    first, last = statuses[0].counters, statuses[-1].counters
    if span_s is None:
        return Counter({name: last[name] - first[name] for name in first})
    times_s = [status.received_s for status in statuses]
    return Counter({name: round(float(np.diff(np.interp(
        span_s, times_s, [status.counters[name] for status in statuses]))[0])) for name in first})


def _frames(published: int | None, counted: Mapping[str, int]) -> dict[str, int | None]:
    received = counted['frames_received']
    return {
        'frames_published': published,
        'frames_received': received,
        'frames_dropped': None if published is None else max(0, published - received),
        'frames_superseded': counted['frames_superseded'],
        'frames_rejected': counted['frames_rejected'],
    }


def _ratio(part: float, of: float) -> float | None:
    return part / of if part > 0 and of > 0 else None
