"""How a process that must not wait is joined to DDS."""

import os
from pathlib import Path

from vla_policy_node.bringup import dds_environment
from vla_policy_node.bringup import share_directory


def avoid_shared_memory() -> None:
    """
    Let Fast DDS use UDP alone in this process; to be called before the first participant.

    In shared memory a lock may be held by a process that waits for its turn on a busy machine:
    commands came up to 80 ms late. A profile that the user has chosen is kept. Without effect
    with ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, where rmw_fastrtps chooses by itself.
    """
    config = share_directory() / 'config'
    for name, profile in dds_environment().items():
        if Path(profile).resolve() == (config / 'fastdds_profile.xml').resolve():
            os.environ[name] = str(config / 'fastdds_small_messages.xml')
