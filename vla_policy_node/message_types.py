"""
The message definitions of vla_msgs, to write bags without a ROS installation.

Knows nothing of what is written.
"""

import os
from pathlib import Path

from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from rosbags.typesys.store import Typestore

_INTERFACES = 'vla_msgs'


def interface_directory() -> Path:
    """
    Return the folder with the .msg files of vla_msgs: the install space, else the sources.

    Raises FileNotFoundError when there is none.
    """
    prefixes = [Path(text) for text in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    candidates = [prefix / 'share' / _INTERFACES / 'msg' for prefix in prefixes]
    candidates.append(Path(__file__).resolve().parents[1] / _INTERFACES / 'msg')
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
