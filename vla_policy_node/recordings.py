"""
Reads rosbag2 recordings (MCAP and SQLite, folder or file) without a ROS installation.

An index of a topic holds two times per message; messages are read when asked for, by time, so
memory does not grow with pictures. Knows nothing of what the messages are used for.
A damaged bag is refused, or read as far as it goes where that is asked for.
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
from tempfile import TemporaryDirectory
from typing import Any
from typing import NamedTuple

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore
import yaml

from vla_policy_node.bag_salvage import SalvagedBag
from vla_policy_node.images import to_rgb
from vla_policy_node.mcap_metadata import read_mcap_metadata
from vla_policy_node.zstandard import unpack_file
from vla_policy_node.zstandard import unzstd
from vla_policy_node.zstandard import ZSTD_MAGIC

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
CHUNK_TYPE = 'vla_msgs/msg/EndEffectorDeltaChunk'


class RecordingError(ValueError):
    """A recording, or something in it, cannot be read; one line says where and how to mend it."""


class DamagedError(RecordingError):
    """The bytes of a recording make no sense, or are not there."""


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


class Serialised(NamedTuple):
    """One message as it is stored: topic, type, time of receipt [ns since the epoch], CDR."""

    topic: str
    type: str
    received_ns: int
    data: bytes


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

    path: the folder of a bag, or one .mcap or .db3 file of it, which may end in .zstd. Can be
    pickled; every process then opens it for itself. A bag with file compression is unpacked to a
    temporary folder while open. salvage: read what is left of a damaged bag, in the order of its
    files and without its index; `damage` then says what is lost.
    Raises RecordingError where it cannot be read.
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        self.path = Path(path)
        self._salvage = salvage
        self._unpacked: TemporaryDirectory | None = None
        self._reader: AnyReader | SalvagedBag | None = None
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
        for serialised in self.raw(*names, start_ns=start_ns, stop_ns=stop_ns):
            yield self.deserialize(serialised)

    def raw(
        self, *names: str, start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[Serialised]:
        """Yield the bytes of messages, in order and within times as `messages` does."""
        for connection, when, data in self._raw(names, start_ns, stop_ns):
            # One file of a bag with message compression does not say so; CDR begins otherwise.
            if data[:4] == ZSTD_MAGIC:
                with _reading(self.path, f'{connection.topic} at {when} ns'):
                    data = unzstd(data)
            yield Serialised(connection.topic, connection.msgtype, when, data)

    def deserialize(self, serialised: Serialised) -> Recorded:
        """Return the message that bytes say; RecordingError where they say none."""
        topic, msgtype, when, data = serialised
        with _reading(self.path, f'{topic} at {when} ns'):
            message = self._opened().deserialize(data, msgtype)
        return Recorded(topic=topic, received_ns=when, message=message)

    @property
    def damage(self) -> str:
        """What of a damaged bag could not be read, in words; '' where all of it was."""
        reader = self._opened()
        return reader.damage() if isinstance(reader, SalvagedBag) else ''

    @property
    def custom_data(self) -> dict[str, str]:
        """
        What `ros2 bag record --custom-data` said, and other words of the bag's metadata.

        Of metadata.yaml, also that of a file in its folder, and of metadata records in MCAP.
        """
        self._opened()
        where = Path(self._unpacked.name) if self._unpacked else self.path
        found: dict[str, str] = {}
        for file in sorted(where.glob('*.mcap')) if where.is_dir() else [where]:
            found.update(read_mcap_metadata(file))
        return {**found, **_custom_data_of(self.path if self.path.is_dir() else self.path.parent)}

    def has_header(self, type_name: str) -> bool:
        """Return whether messages of a type begin with a header, and so with a stamp."""
        _, fields = self._opened().typestore.fielddefs.get(type_name, ((), ()))
        return bool(fields) and fields[0][1][1] == 'std_msgs/msg/Header'

    def close(self) -> None:
        """Let go of the files."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        unpacked, self._unpacked = self._unpacked, None
        if unpacked is not None:
            unpacked.cleanup()

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_reader': None, '_unpacked': None}

    def _opened(self) -> AnyReader | SalvagedBag:
        if self._reader is None:
            with _reading(self.path, 'its index'):
                self._reader = (SalvagedBag(self.path, _common_types()) if self._salvage
                                else self._open_whole())
        return self._reader

    def _open_whole(self) -> AnyReader:
        path = self.path
        if path.suffix == '.zstd' and path.is_file():
            self._unpacked = TemporaryDirectory(prefix='bag_')
            path = unpack_file(path, Path(self._unpacked.name))
        reader = AnyReader([path], default_typestore=_common_types())
        reader.open()
        return reader

    def _raw(
        self, names: Sequence[str], start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[tuple[Any, int, bytes]]:
        for name in names:
            self.require(name)
        wanted = [c for c in self._opened().connections if c.topic in names]
        with _reading(self.path, f'messages of {", ".join(names)}'):
            yield from self._opened().messages(wanted, start=start_ns, stop=stop_ns)

    def _scan(self, names: Sequence[str]) -> dict[str, TopicIndex]:
        stamped = {name for name in names if self.has_header(self.require(name).type)}
        times = {name: (array('q'), array('q')) for name in names}
        for topic, _, when, data in self.raw(*names):
            received, stamps = times[topic]
            received.append(when)
            stamps.append((topic in stamped and stamp_of(data)) or when)
        return {name: _ordered(*columns) for name, columns in times.items()}


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


def _custom_data_of(folder: Path) -> dict[str, str]:
    """Return the custom data in a folder's metadata.yaml, if there is one that makes sense."""
    try:
        content = yaml.safe_load((folder / 'metadata.yaml').read_text(encoding='utf-8'))
        custom = content['rosbag2_bagfile_information'].get('custom_data') or {}
        return {str(key): str(value) for key, value in custom.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return {}


@cache
def _common_types() -> Typestore:
    """Return the types for bags that hold no definitions, which is slow to make."""
    return get_typestore(Stores.ROS2_JAZZY)


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def _nanoseconds(time: Any) -> int:
    return time.sec * 1_000_000_000 + time.nanosec


def stamp_of(data: bytes) -> int:
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
        raise DamagedError(
            f'{path}: expected a complete rosbag2 (.mcap, .db3 or a folder with metadata.yaml) to '
            f'read {what}, found: {found}; recover it with `ros2 bag reindex` or `mcap recover`'
        ) from error
