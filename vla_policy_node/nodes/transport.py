"""How a process that must not wait is joined to DDS."""

import os
from pathlib import Path

from vla_policy_node.bringup import dds_environment
from vla_policy_node.bringup import share_directory


def avoid_shared_memory() -> None:
    """
    Let Fast DDS use UDP alone in this process; to be called before the first participant.

    In shared memory a lock may be held by a process that waits for its turn on a busy machine, or
    has been stopped: commands came up to 1 s late. A profile that the user has chosen is kept.

    Where DDS is to stay on this machine, rmw_fastrtps would add shared memory to any profile. The
    profile then keeps it there by itself, unless there are ROS_STATIC_PEERS.
    """
    config = share_directory() / 'config'
    shipped = (config / 'fastdds_profile.xml').resolve()
    names = [name for name, profile in dds_environment().items()
             if Path(profile).resolve() == shipped]
    profile = 'fastdds_small_messages.xml'
    if names and _is_local():
        profile = 'fastdds_small_messages_localhost.xml'
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'SYSTEM_DEFAULT'
        os.environ.pop('ROS_LOCALHOST_ONLY', None)
    for name in names:
        os.environ[name] = str(config / profile)


def _is_local() -> bool:
    # In this order rcl looks at them.
    if os.environ.get('ROS_LOCALHOST_ONLY') == '1':
        return True
    return (os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST'
            and not os.environ.get('ROS_STATIC_PEERS'))
