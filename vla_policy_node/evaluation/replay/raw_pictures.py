"""Compressed pictures of a recording as raw ones, for a node that takes one kind only."""

from functools import cache

import numpy as np
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore

from vla_policy_node.images import ImageError
from vla_policy_node.recordings import read_image
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError
from vla_policy_node.recordings import Serialised

COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
RAW_TYPE = 'sensor_msgs/msg/Image'


def as_raw_image(recording: Recording, picture: Serialised) -> Serialised | None:
    """Return a picture as an Image: itself, or what a CompressedImage shows; None if nothing."""
    if picture.type != COMPRESSED_TYPE:
        return picture
    try:
        recorded = recording.deserialize(picture)
        pixels = read_image(recorded)
    except (ImageError, RecordingError):
        return None
    return picture._replace(type=RAW_TYPE, data=_serialised(recorded.message.header, pixels))


def _serialised(header: object, pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    store = _types()
    message = store.types[RAW_TYPE](
        header=header, height=height, width=width, encoding='rgb8', is_bigendian=0,
        step=3 * width, data=pixels.reshape(-1))
    return bytes(store.serialize_cdr(message, RAW_TYPE))


@cache
def _types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)
