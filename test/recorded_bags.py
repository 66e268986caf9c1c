"""Messages of robots of other makers, beside those of bag_folders."""

from collections.abc import Sequence
from typing import Any

from bag_folders import header
from bag_folders import Message
from bag_folders import SECOND
from bag_folders import START
from bag_folders import store
import numpy as np

TWISTS = '/servo/delta_twist_cmds'
POSES = '/tool_pose'
JOINTS = '/joint_states'
NUMBERS = '/gripper/command'



def twist(
    at_s: float, linear: Sequence[float] = (0, 0, 0), angular: Sequence[float] = (0, 0, 0), *,
    frame: str = 'base', stamp_s: float | None = None,
) -> Message:
    """Return a velocity; stamp_s: of the header, when it is not the time of receipt."""
    vector = store().types['geometry_msgs/msg/Vector3']
    return _message(TWISTS, 'geometry_msgs/msg/TwistStamped', at_s,
                    header=header(at_s if stamp_s is None else stamp_s, frame),
                    twist=store().types['geometry_msgs/msg/Twist'](
                        linear=vector(*map(float, linear)), angular=vector(*map(float, angular))))


def pose(
    at_s: float, place: Sequence[float] = (0, 0, 0), turned: Sequence[float] = (0, 0, 0, 1), *,
    frame: str = 'base',
) -> Message:
    """Return a pose; turned: x, y, z, w."""
    types = store().types
    return _message(POSES, 'geometry_msgs/msg/PoseStamped', at_s, header=header(at_s, frame),
                    pose=types['geometry_msgs/msg/Pose'](
                        position=types['geometry_msgs/msg/Point'](*map(float, place)),
                        orientation=types['geometry_msgs/msg/Quaternion'](*map(float, turned))))


def joints(at_s: float, **positions: float) -> Message:
    """Return joint positions by name."""
    return _message(JOINTS, 'sensor_msgs/msg/JointState', at_s, header=header(at_s, ''),
                    name=list(positions), position=np.array(list(positions.values()), float),
                    velocity=np.zeros(0), effort=np.zeros(0))


def number(at_s: float, value: float) -> Message:
    """Return a std_msgs/Float64."""
    return _message(NUMBERS, 'std_msgs/msg/Float64', at_s, data=float(value))


def _message(topic: str, kind: str, at_s: float, **fields: Any) -> Message:
    return topic, START + round(at_s * SECOND), store().types[kind](**fields)
