"""Writes tiny bags with the real message definitions."""

from collections.abc import Iterable
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from vla_policy_node.message_types import typestore

CAMERA = '/camera/image_raw'
WRIST = '/wrist/image_raw/compressed'
CHUNKS = '/policy_node/action_chunk'
STATUS = '/policy_node/status'
WORDS = '/instruction'
TYPES = {
    CAMERA: 'sensor_msgs/msg/Image', WRIST: 'sensor_msgs/msg/CompressedImage',
    CHUNKS: 'vla_msgs/msg/EndEffectorDeltaChunk', STATUS: 'vla_msgs/msg/PolicyStatus',
    WORDS: 'std_msgs/msg/String'}
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

FORMATS = {
    'mcap': (StoragePlugin.MCAP, CompressionMode.NONE),
    'mcap, chunks in zstd': (StoragePlugin.MCAP, CompressionMode.STORAGE),
    'mcap, messages in zstd': (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    'mcap, file in zstd': (StoragePlugin.MCAP, CompressionMode.FILE),
    'sqlite': (StoragePlugin.SQLITE3, CompressionMode.NONE),
    'sqlite, messages in zstd': (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    'sqlite, file in zstd': (StoragePlugin.SQLITE3, CompressionMode.FILE),
}

Message = tuple[str, int, Any]


@cache
def store() -> Any:
    """Return the types of ROS 2 and vla_msgs."""
    return typestore()


def image(
    received_s: float, shade: int, stamp_s: float | None = None, topic: str = CAMERA,
) -> Message:
    """Return a picture of one grey, 4 by 6 pixels; a PNG on the wrist's topic."""
    pixels = np.full((4, 6, 3), shade, np.uint8)
    fields = {'height': 4, 'width': 6, 'encoding': 'rgb8', 'is_bigendian': 0, 'step': 18,
              'data': pixels.reshape(-1)}
    if topic == WRIST:
        fields = {'format': 'png', 'data': cv2.imencode('.png', pixels)[1].reshape(-1)}
    stamp_s = received_s if stamp_s is None else stamp_s
    return _message(topic, received_s, header=header(stamp_s, 'camera'), **fields)


def chunk(
    received_s: float, actions: Sequence[Sequence[float]], *, observed_s: float | None = None,
    period_s: float = 0.2, terminate: bool = False, plan: str = '', sequence: int = 1,
) -> Message:
    """Return a chunk of deltas; seen when it was received unless observed_s says otherwise."""
    types = store().types
    vector = types['geometry_msgs/msg/Vector3']
    deltas = [types['vla_msgs/msg/EndEffectorDelta'](
        translation=vector(*action[:3]), rotation=vector(*action[3:6]), gripper=action[6],
        terminate=terminate, confidence=np.ones(7, np.float32)) for action in actions]
    observed_s = received_s if observed_s is None else observed_s
    return _message(
        CHUNKS, received_s, header=header(received_s, 'base'),
        observation_stamp=header(observed_s, '').stamp, sequence=sequence,
        period=types['builtin_interfaces/msg/Duration'](0, round(period_s * SECOND)),
        deltas=deltas, token_ids=np.zeros(0, np.int64), plan=plan)


def words(received_s: float, text: str) -> Message:
    """Return an instruction as std_msgs/String."""
    return _message(WORDS, received_s, data=text)


def status(received_s: float, text: str) -> Message:
    """Return the policy's status with an instruction."""
    fields = {name: 0 for name, _ in store().fielddefs[TYPES[STATUS]][1]}
    return _message(STATUS, received_s, **{
        **fields, 'header': header(received_s, ''), 'state_text': '', 'instruction': text})


def write(
    path: Path, messages: Iterable[Message], *, plugin: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE, custom: dict[str, str] | None = None,
) -> Path:
    """
    Write a bag of messages of any type as `ros2 bag record` would, with the topics that occur.

    custom: as of `ros2 bag record --custom-data`.
    """
    messages = sorted(messages, key=lambda item: item[1])
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression != CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    for key, value in (custom or {}).items():
        writer.set_custom_data(key, value)
    with writer:
        connections: dict[str, Any] = {}
        for topic, received_ns, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store())
            data = store().serialize_cdr(message, kind)
            writer.write(connections[topic], received_ns, bytes(data))
    return path


def header(stamp_s: float, frame: str) -> Any:
    """Return a header; the stamp counts from START."""
    types = store().types
    stamp = types['builtin_interfaces/msg/Time'](*divmod(START + round(stamp_s * SECOND), SECOND))
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)


def _message(topic: str, received_s: float, **fields: Any) -> Message:
    received_ns = START + round(received_s * SECOND)
    return topic, received_ns, store().types[TYPES[topic]](**fields)
