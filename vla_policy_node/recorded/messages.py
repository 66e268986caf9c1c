"""
One pass over a recording: what its messages say as columns of numbers, pictures by their times.

Knows the message types; knows nothing of what is made of the numbers.
"""

from array import array
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
import struct
from typing import Any

import numpy as np

from vla_policy_node.recorded.config import JointGripper
from vla_policy_node.recorded.config import NumberGripper
from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.recordings import CHUNK_TYPE
from vla_policy_node.recordings import IMAGE_TYPES
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import Recorded
from vla_policy_node.recordings import RecordedChunk
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError
from vla_policy_node.recordings import Serialised
from vla_policy_node.recordings import stamp_of

STATUS_TYPE = 'vla_msgs/msg/PolicyStatus'
STRING_TYPE = 'std_msgs/msg/String'
TWIST_TYPE = 'geometry_msgs/msg/TwistStamped'
POSE_TYPE = 'geometry_msgs/msg/PoseStamped'
JOINTS_TYPE = 'sensor_msgs/msg/JointState'
NUMBER_TYPE = 'std_msgs/msg/Float64'

_ACTION_TYPES = {'chunk': (CHUNK_TYPE, 0), 'twist': (TWIST_TYPE, 6), 'pose': (POSE_TYPE, 7)}

# A message -> its numbers, or what it says otherwise; None leaves it out.
Reader = Callable[[Recorded], tuple[float, ...] | RecordedChunk | str | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """
    The M messages of a topic, in the order they are read.

    type: of the messages. stamped: whether they have stamps; otherwise stamp_ns is 0.
    received_ns, stamp_ns: (M,) int64. places: (M,) int64, how many messages of the topic come
    before, those that are left out here too. values: (M, D) float64, not finite where a message
    says so. items: what is no number, M chunks or texts. frame_ids: of the headers, of actions.
    """

    type: str
    stamped: bool
    received_ns: np.ndarray
    stamp_ns: np.ndarray
    places: np.ndarray
    values: np.ndarray
    items: tuple[Any, ...] = ()
    frame_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.received_ns)

    def at(self, rows: np.ndarray) -> 'Column':
        """Return the L messages in (L,) rows of this column."""
        return replace(
            self, received_ns=self.received_ns[rows], stamp_ns=self.stamp_ns[rows],
            places=self.places[rows], values=self.values[rows],
            items=tuple(self.items[row] for row in rows) if self.items else ())

    def times_ns(self) -> np.ndarray:
        """(M,) int64: stamps where messages have them, else the times of receipt."""
        return self.stamp_ns if self.stamped else self.received_ns


class _Collector:
    """Grows the columns of one topic; read: None keeps the times only."""

    def __init__(self, msgtype: str, read: Reader | None, width: int, has_header: bool) -> None:
        self.read = read
        self.has_header = has_header
        self._type = msgtype
        self._width = width
        self._seen = 0
        self._times = array('q'), array('q'), array('q')
        self._values = array('d')
        self._items: list[Any] = []

    def skip(self) -> None:
        """Leave a message out."""
        self._seen += 1

    def add(self, received_ns: int, stamp_ns: int, said: Any) -> None:
        """Take what a message says."""
        for column, number in zip(self._times, (received_ns, stamp_ns, self._seen), strict=True):
            column.append(number)
        self._seen += 1
        if self._width:
            self._values.extend(said)
        elif self.read:
            self._items.append(said)

    def finished(self) -> Column:
        """Return what was collected; single messages without a stamp among others are left out."""
        received, stamps, places = (np.array(column, np.int64) for column in self._times)
        values = np.array(self._values, np.float64).reshape(len(received), self._width)
        stamped = bool(2 * np.count_nonzero(stamps) > len(stamps))
        column = Column(
            type=self._type, stamped=stamped, received_ns=received, places=places, values=values,
            stamp_ns=stamps if stamped else np.zeros_like(stamps), items=tuple(self._items))
        return column.at(np.flatnonzero(stamps)) if stamped else column


def scan(
    recording: Recording, config: RecordedConfig, skipped: Counter[str],
) -> dict[str, Column]:
    """
    Read all topics that a configuration names, pictures without their pixels, in one pass.

    skipped: counts messages that are left out. Raises RecordingError for missing topics, wrong
    types, joints that do not occur, and a bag that cannot be read to its end.
    """
    require_topics(recording, config)
    collectors = {}
    frames = _FrameCheck(config.actions.topic, config.actions.frame, skipped)
    for topic, (read, width) in _readers(config, frames).items():
        msgtype = recording.topics[topic].type
        collectors[topic] = _Collector(msgtype, read, width, recording.has_header(msgtype))
    for serialised in recording.raw(*collectors):
        _take(recording, serialised, collectors[serialised.topic], skipped)
    columns = {topic: collector.finished() for topic, collector in collectors.items()}
    acted = config.actions.topic
    columns[acted] = replace(columns[acted], frame_ids=tuple(sorted(frames.kept)))
    gripper = config.gripper
    if isinstance(gripper, JointGripper) and not len(columns[gripper.topic]):
        raise RecordingError(
            f'{recording.path}: expected joints {", ".join(gripper.joints)} in {gripper.topic}, '
            f'found {_joints_of(recording, gripper.topic)}; correct gripper.joints')
    return columns


def _take(
    recording: Recording, serialised: Serialised, collector: _Collector, skipped: Counter[str],
) -> None:
    try:
        stamp_ns = stamp_of(serialised.data) if collector.has_header else 0
        said = collector.read(recording.deserialize(serialised)) if collector.read else ()
    except (RecordingError, struct.error, IndexError):
        skipped[f'message of {serialised.topic} unreadable'] += 1
        said = None
    if said is None:
        collector.skip()
    else:
        collector.add(serialised.received_ns, stamp_ns, said)


def require_topics(recording: Recording, config: RecordedConfig) -> None:
    """Raise RecordingError where a topic is missing or of another type, listing what there is."""
    for topic in config.cameras.values():
        recording.require(topic, IMAGE_TYPES)
    recording.require(config.actions.topic, (_ACTION_TYPES[config.actions.kind][0],))
    gripper, said = config.gripper, config.instruction
    if isinstance(gripper, JointGripper):
        recording.require(gripper.topic, (JOINTS_TYPE,))
    elif isinstance(gripper, NumberGripper):
        recording.require(gripper.topic, (NUMBER_TYPE,))
    if said is not None and said.topic is not None:
        recording.require(said.topic, (STATUS_TYPE, STRING_TYPE))


def _readers(
    config: RecordedConfig, frames: '_FrameCheck',
) -> Mapping[str, tuple[Reader | None, int]]:
    """Return topic -> how to read it and how many numbers it gives."""
    readers: dict[str, tuple[Reader | None, int]] = dict.fromkeys(
        config.cameras.values(), (None, 0))
    kind = config.actions.kind
    read = {'chunk': read_chunk, 'twist': _read_twist, 'pose': _read_pose}[kind]
    readers[config.actions.topic] = (
        lambda r: read(r) if frames(r.message) else None), _ACTION_TYPES[kind][1]
    gripper, said = config.gripper, config.instruction
    if isinstance(gripper, JointGripper):
        readers[gripper.topic] = (lambda r: _read_joints(r.message, gripper)), 1
    elif isinstance(gripper, NumberGripper):
        readers[gripper.topic] = (lambda r: (r.message.data,)), 1
    if said is not None and said.topic is not None:
        readers[said.topic] = _read_words, 0
    return readers


class _FrameCheck:
    """Says whether a message is in the frame asked for, and counts those that are not."""

    def __init__(self, topic: str, frame: str | None, skipped: Counter[str]) -> None:
        self._topic = topic
        self._frame = frame
        self._skipped = skipped
        self.kept: set[str] = set()

    def __call__(self, message: Any) -> bool:
        found = message.header.frame_id
        if self._frame in (None, found):
            self.kept.add(found)
            return True
        self._skipped[f'message of {self._topic} in frame {found!r}, not {self._frame!r}'] += 1
        return False


def _read_twist(recorded: Recorded) -> tuple[float, ...]:
    twist = recorded.message.twist
    return (twist.linear.x, twist.linear.y, twist.linear.z,
            twist.angular.x, twist.angular.y, twist.angular.z)


def _read_pose(recorded: Recorded) -> tuple[float, ...]:
    pose = recorded.message.pose
    place, turned = pose.position, pose.orientation
    return (place.x, place.y, place.z, turned.x, turned.y, turned.z, turned.w)


def _read_joints(message: Any, gripper: JointGripper) -> tuple[float] | None:
    """Return the mean position of the gripper's joints; None where the message has not all."""
    positions = dict(zip(message.name, message.position, strict=False))
    if not positions.keys() >= set(gripper.joints):
        return None     # arm and gripper often publish on the same topic, in turns
    return (float(np.mean([positions[name] for name in gripper.joints])),)


def _read_words(recorded: Recorded) -> str:
    message = recorded.message
    return message.instruction if hasattr(message, 'instruction') else message.data


def _joints_of(recording: Recording, topic: str) -> str:
    names = {name for recorded in recording.messages(topic) for name in recorded.message.name}
    return ', '.join(sorted(names)) or 'none'
