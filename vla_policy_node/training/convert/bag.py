"""
Writes demonstrations into an MCAP bag as our own nodes would have recorded them.

A picture per camera and step, a chunk of one delta for it, and the instruction as a string in
front of every episode. Knows nothing of where demonstrations come from.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.message_types import typestore
from vla_policy_node.recordings import CHUNK_TYPE

CHUNK_TOPIC = '/policy_node/action_chunk'
INSTRUCTION_TOPIC = '/instruction'
# LeRobot data sets do not say when they were recorded: 1 January 2000.
START_NS = 946_684_800_000_000_000
# Longer than the pause at which readers of bags end an episode, by default.
PAUSE_S = 3.0
JPEG_QUALITY = 95
_FRAME = 'base'

_COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
_IMAGE_TYPE = 'sensor_msgs/msg/Image'
_STRING_TYPE = 'std_msgs/msg/String'
_SECOND = 1_000_000_000
# Words are said before the robot moves.
_AHEAD_NS = 1_000_000


def camera_topic(camera: str, *, raw: bool) -> str:
    """Return where the pictures of a camera are: JPEG data, or with `raw` pixels."""
    return f'/{camera}/image_raw' if raw else f'/{camera}/image_raw/compressed'


class DemonstrationBag:
    """
    A bag in the new folder `path`; a context manager.

    cameras: whose pictures come with every step. period_s: of one step. raw: pixels (rgb8) instead
    of JPEG data.
    """

    def __init__(
        self, path: Path, *, cameras: Sequence[str], period_s: float, raw: bool,
    ) -> None:
        self._store = typestore()
        self._period_ns = round(period_s * _SECOND)
        self._raw = raw
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        # Chunks inside the file: readers need no unpacking, and pixels shrink.
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        picture = _IMAGE_TYPE if raw else _COMPRESSED_TYPE
        self._types = {INSTRUCTION_TOPIC: _STRING_TYPE, CHUNK_TOPIC: CHUNK_TYPE,
                       **{camera_topic(camera, raw=raw): picture for camera in cameras}}
        self._connections: dict[str, Any] = {}
        self._start_ns = self._end_ns = START_NS
        self._sequence = 0

    def __enter__(self) -> 'DemonstrationBag':
        self._writer.__enter__()
        self._connections = {
            topic: self._writer.add_connection(topic, kind, typestore=self._store)
            for topic, kind in self._types.items()}
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    @property
    def topics(self) -> dict[str, str]:
        """Topic -> message type."""
        return dict(self._types)

    @property
    def steps(self) -> int:
        """How many steps were written."""
        return self._sequence

    def begin_episode(self, instruction: str) -> None:
        """Let a pause pass if there was an episode before, and say what to do."""
        pause_ns = round(PAUSE_S * _SECOND) if self._sequence else 0
        self._start_ns = self._end_ns = self._end_ns + pause_ns + _AHEAD_NS
        self._write(INSTRUCTION_TOPIC, self._start_ns - _AHEAD_NS, data=instruction)

    def add(self, step: int, images: Mapping[str, np.ndarray], action: np.ndarray) -> None:
        """
        Write a step of the episode: (H, W, 3) uint8 RGB pictures and the (7,) canonical action.

        step: counted from the episode's first one, which it follows by so many periods.
        """
        stamp_ns = self._start_ns + step * self._period_ns
        for camera, picture in images.items():
            self._write(camera_topic(camera, raw=self._raw), stamp_ns,
                        header=self._header(stamp_ns, camera), **self._pixels(picture))
        self._sequence += 1
        header = self._header(stamp_ns, _FRAME)
        self._write(CHUNK_TOPIC, stamp_ns, header=header, observation_stamp=header.stamp,
                    sequence=self._sequence, deltas=[self._delta(action)], plan='',
                    period=self._type('builtin_interfaces/msg/Duration')(
                        *divmod(self._period_ns, _SECOND)), token_ids=np.zeros(0, np.int64))
        self._end_ns = stamp_ns + self._period_ns

    def _pixels(self, picture: np.ndarray) -> dict[str, Any]:
        height, width, _ = picture.shape
        if self._raw:
            return {'height': height, 'width': width, 'encoding': 'rgb8', 'is_bigendian': 0,
                    'step': 3 * width, 'data': np.ascontiguousarray(picture).reshape(-1)}
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return {'format': 'rgb8; jpeg compressed bgr8', 'data': data.reshape(-1)}

    def _delta(self, action: np.ndarray) -> Any:
        vector = self._type('geometry_msgs/msg/Vector3')
        x, y, z, rx, ry, rz, gripper = action.tolist()
        # What was done is certain. Nothing is said of its end: a step that says so does not move.
        return self._type('vla_msgs/msg/EndEffectorDelta')(
            translation=vector(x, y, z), rotation=vector(rx, ry, rz), gripper=gripper,
            terminate=False, confidence=np.ones(ACTION_DIM, np.float32))

    def _header(self, stamp_ns: int, frame: str) -> Any:
        stamp = self._type('builtin_interfaces/msg/Time')(*divmod(stamp_ns, _SECOND))
        return self._type('std_msgs/msg/Header')(stamp=stamp, frame_id=frame)

    def _type(self, name: str) -> Any:
        return self._store.types[name]

    def _write(self, topic: str, received_ns: int, **fields: Any) -> None:
        kind = self._types[topic]
        data = self._store.serialize_cdr(self._type(kind)(**fields), kind)
        self._writer.write(self._connections[topic], received_ns, bytes(data))
