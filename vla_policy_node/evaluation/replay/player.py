"""
Plays the pictures of recorded episodes in real time.

Knows nothing of ROS: a picture is bytes as they were recorded, and goes where it is told to.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
import struct
import time

from vla_policy_node.recorded import RecordedEpisode
from vla_policy_node.recordings import DamagedError
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import Serialised
from vla_policy_node.recordings import stamp_of

# How often the clock ticks and whoever watches is asked, between two pictures.
_TICK_S = 0.01
# Where a stamp lies in serialised messages with a header, behind four bytes of encapsulation.
_STAMP = slice(4, 12)
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """
    Where pictures go.

    publish: topic -> what takes the bytes; the first one is the camera that sets the time. clock:
    takes the time of the recording [ns] as it passes; None rewrites stamps to the time of
    publication instead.
    """

    publish: Mapping[str, Callable[[bytes], None]]
    clock: Callable[[int], None] | None = None


@dataclass(slots=True)
class PlayedFrames:
    """
    What was published.

    frames: stamp [ns] as published -> episode and step, of the camera that sets the time; the step
    is None for a picture that is no step of the episode. newest_ns: the latest of these stamps.
    published: pictures of all cameras. delay_ms: how late each was.
    """

    frames: dict[int, tuple[RecordedEpisode, int | None]] = field(default_factory=dict)
    newest_ns: int = 0
    published: int = 0
    delay_ms: list[float] = field(default_factory=list)


class Player:
    """Publishes episode after episode; `played` tells what."""

    def __init__(self, outlets: Outlets, *, rate: float) -> None:
        """Prepare to play; rate: seconds of the recording per second."""
        self.played = PlayedFrames()
        self._outlets = outlets
        self._first = next(iter(outlets.publish))
        self._rate = rate

    def play(
        self, episode: RecordedEpisode, pictures: Iterable[Serialised], *,
        on_step: Callable[[int], None], goes_on: Callable[[], bool],
    ) -> None:
        """
        Publish the pictures of an episode, each when it is due after the first one.

        on_step: told each step when it was published. goes_on: asked every few milliseconds; the
        episode ends when it says False.
        """
        steps = {times: step for step, times in enumerate(zip(
            episode.received_ns.tolist(), episode.stamp_ns.tolist(), strict=True))}
        start_ns, start_s = None, time.monotonic()
        for picture in pictures:
            start_ns = picture.received_ns if start_ns is None else start_ns
            due_s = start_s + (picture.received_ns - start_ns) / _SECOND / self._rate
            if not self._wait_until(due_s, picture.received_ns, goes_on):
                return
            stamp_ns = self._publish(picture, due_s)
            if picture.topic == self._first:
                step = _step(steps, picture)
                self.played.frames[stamp_ns] = episode, step
                self.played.newest_ns = stamp_ns
                if step is not None:
                    on_step(step)

    def _publish(self, picture: Serialised, due_s: float) -> int:
        """Publish a picture and return the stamp that it was published with."""
        if self._outlets.clock is None:
            stamp_ns = time.time_ns()
        else:
            self._outlets.clock(picture.received_ns)
            stamp_ns = stamp_of(picture.data) or picture.received_ns
        self._outlets.publish[picture.topic](with_stamp(picture.data, stamp_ns))
        self.played.published += 1
        self.played.delay_ms.append(1e3 * max(0.0, time.monotonic() - due_s))
        return stamp_ns

    def _wait_until(self, due_s: float, due_ns: int, goes_on: Callable[[], bool]) -> bool:
        """Let time pass; returns False where whoever watches does not want to go on."""
        while goes_on():
            left_s = due_s - time.monotonic()
            if left_s <= 0.0:
                return True
            if self._outlets.clock is not None:
                self._outlets.clock(due_ns - round(left_s * self._rate * _SECOND))
            time.sleep(min(left_s, _TICK_S))
        return False


def read_pictures(
    episodes: Sequence[RecordedEpisode], topics: Sequence[str], *, lead_s: float,
    adapt: Callable[[Recording, Serialised], Serialised | None] | None = None,
) -> Iterator[tuple[RecordedEpisode, Serialised]]:
    """
    Yield the pictures that cameras recorded during episodes, in order, also those of no step.

    topics: of the cameras, the first of which sets the time. lead_s: pictures of the others begin
    so much earlier, so that its first one does not come alone. adapt: makes another message of a
    picture, or None, which leaves it out; without it pictures stay as they are.
    """
    first = topics[0]
    lead_ns = round(lead_s * _SECOND) if len(topics) > 1 else 0
    for path, group in groupby(episodes, key=attrgetter('path')):
        source = _Source(path)
        try:
            for episode in group:
                start_ns, last_ns = int(episode.received_ns[0]), int(episode.received_ns[-1])
                for picture in source.pictures(topics, start_ns - lead_ns, last_ns + 1):
                    if picture.topic == first and picture.received_ns < start_ns:
                        continue
                    adapted = adapt(source.recording, picture) if adapt else picture
                    if adapted is not None:
                        yield episode, adapted
        finally:
            source.recording.close()


def open_recording(path: Path) -> Recording:
    """Return a recording, or what is left of it; RecordingError where that is nothing."""
    try:
        return Recording(path)
    except DamagedError:
        return Recording(path, salvage=True)


def with_stamp(data: bytes, stamp_ns: int) -> bytes:
    """Return a serialised message that begins with a header, with another stamp [ns]."""
    order = '<' if data[1] & 1 else '>'
    stamp = struct.pack(f'{order}iI', *divmod(stamp_ns, _SECOND))
    return b''.join((data[:_STAMP.start], stamp, data[_STAMP.stop:]))


class _Source:
    """A recording, or what is left of it where it turns out to be damaged."""

    def __init__(self, path: Path) -> None:
        self.recording = open_recording(path)

    def pictures(
        self, topics: Sequence[str], start_ns: int, stop_ns: int,
    ) -> Iterator[Serialised]:
        """Yield messages received from start_ns to before stop_ns."""
        try:
            for picture in self.recording.raw(*topics, start_ns=start_ns, stop_ns=stop_ns):
                start_ns = picture.received_ns + 1
                yield picture
        except DamagedError:
            self.recording.close()
            self.recording = Recording(self.recording.path, salvage=True)
            yield from self.recording.raw(*topics, start_ns=start_ns, stop_ns=stop_ns)


def _step(steps: Mapping[tuple[int, int], int], picture: Serialised) -> int | None:
    """Return the step that a picture is; its time is the receipt's where it has no stamp."""
    received_ns = picture.received_ns
    for stamp_ns in (stamp_of(picture.data), received_ns):
        if (received_ns, stamp_ns) in steps:
            return steps[received_ns, stamp_ns]
    return None
