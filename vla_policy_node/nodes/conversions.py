"""Between the plain data of the rooms and ROS messages; pure functions."""

import math
from typing import Any

from builtin_interfaces.msg import Duration
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from geometry_msgs.msg import Quaternion
from geometry_msgs.msg import Vector3
import numpy as np
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.control.types import Chunk

_NS = 1_000_000_000


def time_ns(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * _NS + stamp.nanosec


def time_s(stamp: Time) -> float:
    """Return a stamp or a duration in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def time_message(stamp_ns: int) -> Time:
    """Return the message of a time in nanoseconds."""
    return Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def duration_message(duration_s: float) -> Duration:
    """Return the message of a duration in seconds, to the nearest nanosecond."""
    total_ns = round(duration_s * _NS)
    return Duration(sec=total_ns // _NS, nanosec=total_ns % _NS)


def vector(values: np.ndarray) -> Vector3:
    """Return the message of three numbers."""
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def point(values: np.ndarray) -> Point:
    """Return the message of a position (3,) [m]."""
    return Point(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def quaternion_message(wxyz: np.ndarray) -> Quaternion:
    """Return the message of a quaternion (4,) in the order w x y z."""
    return Quaternion(w=float(wxyz[0]), x=float(wxyz[1]), y=float(wxyz[2]), z=float(wxyz[3]))


def components(message: Any) -> tuple[float, float, float]:
    """Return x, y, z of a Vector3 or a Point."""
    return message.x, message.y, message.z


def quaternion_wxyz(message: Quaternion) -> tuple[float, float, float, float]:
    """Return a quaternion in the order w x y z."""
    return message.w, message.x, message.y, message.z


def control_chunk(
    message: EndEffectorDeltaChunk, *, publisher: str, publisher_name: str, publisher_count: int,
    received_mono_s: float,
) -> Chunk:
    """Return a chunk message as the controller takes it; nothing is checked here."""
    rows = [
        (*components(delta.translation), *components(delta.rotation), delta.gripper)
        for delta in message.deltas]
    # A negative duration must not turn into a valid one by its nanoseconds.
    period_s = time_s(message.period) if message.period.sec >= 0 else math.nan
    return Chunk(
        frame=message.header.frame_id, sequence=message.sequence,
        observation_stamp_s=time_s(message.observation_stamp), period_s=period_s,
        deltas=np.array(rows, np.float64).reshape(-1, 7),
        terminate=tuple(delta.terminate for delta in message.deltas),
        publisher=publisher, publisher_name=publisher_name, publisher_count=publisher_count,
        received_mono_s=received_mono_s)
