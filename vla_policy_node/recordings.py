"""
Reads rosbag2 recordings (MCAP and SQLite, folder or file) without a ROS installation.

An index of a topic holds two times per message; messages are read when asked for, by time, so
memory does not grow with pictures. Knows nothing of what the messages are used for.
"""

from array import array
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
import struct
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore

from vla_policy_node.images import to_rgb

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
CHUNK_TYPE = 'vla_msgs/msg/EndEffectorDeltaChunk'


class RecordingError(ValueError):
    """A recording, or something in it, cannot be read; one line says where and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic of a recording: its message type 'package/msg/Type' and how many messages."""

    name: str
    type: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopicIndex:
    """
    When the N messages of a topic were received and stamped, in order of receipt.

    received_ns, stamp_ns: (N,) int64 ns since the epoch; the stamp is the header's, or the time of
    receipt where the message has no header or the stamp is zero.
    """

    received_ns: np.ndarray
    stamp_ns: np.ndarray

    def __len__(self) -> int:
        return len(self.received_ns)

    def newest_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Return (N,) int64 places of the newest messages stamped at or before (N,) times; or -1.

        Of equal stamps it is the one received last.
        """
        order = np.argsort(self.stamp_ns, kind='stable')
        rank = np.searchsorted(self.stamp_ns[order], times_ns, side='right') - 1
        return np.where(rank < 0, -1, np.append(order, -1)[rank])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message: topic, time of receipt [ns since the epoch], and its fields as attributes."""

    topic: str
    received_ns: int
    message: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedChunk:
    """
    What an EndEffectorDeltaChunk says.

    actions: (K, 7) float64 canonical, as recorded (perhaps not finite). terminate: (K,) bool.
    observation_ns: stamp of the camera frame, 0 where none was given. period_s: time of one delta.
    """

    actions: np.ndarray
    terminate: np.ndarray
    observation_ns: int
    period_s: float
    frame: str
    plan: str


class Recording:
    """
    A bag that can be read at any place; open until closed, and reopened by itself after that.

    path: the folder of a bag, or one .mcap or .db3 file of it. Can be pickled; every process then
    opens it for itself. A bag with file compression is unpacked to a temporary folder while open.
    Raises RecordingError where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._reader: AnyReader | None = None
        self._indices: dict[str, TopicIndex] = {}
        self.topics = {name: Topic(name=name, type=info.msgtype or '', count=info.msgcount)
                       for name, info in self._opened().topics.items()}

    def require(self, name: str, types: Sequence[str] = ()) -> Topic:
        """Return a topic; RecordingError listing what there is, or the types that would do."""
        topic = self.topics.get(name)
        if topic is None:
            known = ', '.join(f'{t.name} ({t.type}, {t.count})' for t in self.topics.values())
            raise RecordingError(f'{self.path}: expected a topic {name}, found '
                                 f'{known or "no topic at all"}; name one of these')
        if types and topic.type not in types:
            raise RecordingError(f'{self.path}: expected {name} to be of type {" or ".join(types)}'
                                 f', found {topic.type}; name another topic')
        return topic

    def index(self, *names: str) -> tuple[TopicIndex, ...]:
        """Return the indices of topics; those not known yet are made in one pass over the bag."""
        missing = [name for name in names if name not in self._indices]
        if missing:
            self._indices.update(self._scan(missing))
        return tuple(self._indices[name] for name in names)

    def read(self, name: str, place: int) -> Recorded:
        """Return the message at a place of the topic's index, counted from 0."""
        (index,) = self.index(name)
        when = int(index.received_ns[place])
        earlier = place - int(np.searchsorted(index.received_ns, when, side='left'))
        for recorded in islice(self.messages(name, start_ns=when, stop_ns=when + 1),
                               earlier, None):
            return recorded
        raise RecordingError(f'{self.path}: expected message {place} of {name} at {when} ns, found'
                             ' none; the bag was changed while it was read')

    def messages(
        self, *names: str, start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[Recorded]:
        """Yield the messages of topics in order of receipt, from start_ns to before stop_ns."""
        for connection, when, data in self._raw(names, start_ns, stop_ns):
            with _reading(self.path, f'{connection.topic} at {when} ns'):
                message = self._opened().deserialize(data, connection.msgtype)
            yield Recorded(topic=connection.topic, received_ns=when, message=message)

    def close(self) -> None:
        """Let go of the files."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_reader': None}

    def _opened(self) -> AnyReader:
        if self._reader is None:
            with _reading(self.path, 'its index'):
                reader = AnyReader([self.path], default_typestore=_common_types())
                reader.open()
                self._reader = reader
        return self._reader

    def _raw(
        self, names: Sequence[str], start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[tuple[Any, int, bytes]]:
        for name in names:
            self.require(name)
        wanted = [c for c in self._opened().connections if c.topic in names]
        with _reading(self.path, f'messages of {", ".join(names)}'):
            yield from self._opened().messages(wanted, start=start_ns, stop=stop_ns)

    def _scan(self, names: Sequence[str]) -> dict[str, TopicIndex]:
        stamped = {name for name in names if self._has_header(self.require(name).type)}
        times = {name: (array('q'), array('q')) for name in names}
        for connection, when, data in self._raw(names):
            received, stamps = times[connection.topic]
            received.append(when)
            stamps.append((connection.topic in stamped and _stamp_of(data)) or when)
        return {name: _ordered(*columns) for name, columns in times.items()}

    def _has_header(self, type_name: str) -> bool:
        _, fields = self._opened().typestore.fielddefs.get(type_name, ((), ()))
        return bool(fields) and fields[0][1][1] == 'std_msgs/msg/Header'


def read_image(recorded: Recorded) -> np.ndarray:
    """Return the pixels of an Image or CompressedImage, (H, W, 3) uint8 RGB; or ImageError."""
    return to_rgb(recorded.message)


def read_chunk(recorded: Recorded) -> RecordedChunk:
    """Return what an EndEffectorDeltaChunk says."""
    message = recorded.message
    actions = [(*_xyz(delta.translation), *_xyz(delta.rotation), delta.gripper)
               for delta in message.deltas]
    return RecordedChunk(
        actions=np.array(actions, np.float64).reshape(-1, 7),
        terminate=np.array([delta.terminate for delta in message.deltas], bool),
        observation_ns=_nanoseconds(message.observation_stamp),
        period_s=1e-9 * _nanoseconds(message.period), frame=message.header.frame_id,
        plan=message.plan)


@cache
def _common_types() -> Typestore:
    """Return the types for bags that hold no definitions, which is slow to make."""
    return get_typestore(Stores.ROS2_JAZZY)


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def _nanoseconds(time: Any) -> int:
    return time.sec * 1_000_000_000 + time.nanosec


def _stamp_of(data: bytes) -> int:
    """Return the stamp [ns] that a serialised message with a header begins with."""
    # The second byte of the CDR encapsulation says the byte order; the header follows at 4.
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def _ordered(received: array, stamps: array) -> TopicIndex:
    received_ns, stamp_ns = (np.array(column, np.int64) for column in (received, stamps))
    order = np.argsort(received_ns, kind='stable')
    return TopicIndex(received_ns=received_ns[order], stamp_ns=stamp_ns[order])


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except RecordingError:
        raise
    except Exception as error:  # damaged bytes lead the parsers behind this to a dozen kinds
        found = ' '.join(str(error).split()) or type(error).__name__
        raise RecordingError(
            f'{path}: expected a complete rosbag2 (.mcap, .db3 or a folder with metadata.yaml) to '
            f'read {what}, found: {found}; recover it with `ros2 bag reindex` or `mcap recover`'
        ) from error
