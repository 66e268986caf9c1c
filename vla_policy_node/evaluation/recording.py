"""
Writes the messages of an episode into a rosbag2 in MCAP form that other tools can read.

Takes serialised (CDR) messages as a subscriber receives them; needs no ROS installation.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import shutil

from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from vla_policy_node.message_types import typestore


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One message: topic, time of receipt [ns since the epoch], CDR bytes."""

    topic: str
    received_ns: int
    data: bytes


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
