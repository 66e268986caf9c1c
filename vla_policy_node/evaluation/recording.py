"""
Writes the messages of an episode into a rosbag2 in MCAP form that other tools can read.

Takes serialised (CDR) messages as a subscriber receives them; needs no ROS installation.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
import shutil

from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore

_INTERFACES = 'vla_msgs'


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message: topic, time of receipt [ns since the epoch], CDR bytes."""

    topic: str
    received_ns: int
    data: bytes


def interface_directory() -> Path:
    """
    Return the folder with the .msg files of vla_msgs: the install space, else the sources.

    Raises FileNotFoundError when there is none.
    """
    prefixes = [Path(text) for text in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    candidates = [prefix / 'share' / _INTERFACES / 'msg' for prefix in prefixes]
    candidates.append(Path(__file__).resolve().parents[2] / _INTERFACES / 'msg')
    for candidate in candidates:
        if any(candidate.glob('*.msg')):
            return candidate
    raise FileNotFoundError(
        'expected the message definitions of vla_msgs in a prefix of AMENT_PREFIX_PATH, found'
        ' none; build the workspace and source its setup file')


def typestore() -> Typestore:
    """Return the common ROS 2 types together with those of vla_msgs."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in sorted(interface_directory().glob('*.msg')):
        types.update(get_types_from_msg(path.read_text(), f'{_INTERFACES}/msg/{path.stem}'))
    store.register(types)
    return store


def write_bag(path: Path, topics: Mapping[str, str], messages: Iterable[Recorded]) -> int:
    """
    Write a bag of `topics` {topic: 'package/msg/Type'} at the folder `path`, replacing it.

    Returns the number of messages. Raises KeyError for a message of a topic not in `topics`.
    """
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = typestore()
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    # Chunks inside the file: rendered frames shrink to a fraction, readers need no unpacking.
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    count = 0
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in topics.items()}
        for message in sorted(messages, key=lambda item: item.received_ns):
            writer.write(connections[message.topic], message.received_ns, message.data)
            count += 1
    return count
