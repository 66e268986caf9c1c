"""The environment of the processes of a part."""

import os
from pathlib import Path

from vla_policy_node.bringup import inference_threads

ROOT = Path(__file__).resolve().parents[2]
# As shipped, but a killed participant is forgotten after four seconds instead of twenty.
_PROFILE = Path(__file__).with_name('fastdds_profile.xml')
_UDP_PROFILE = Path(__file__).with_name('fastdds_udp.xml')


def environment(domain: int, scratch: Path) -> dict[str, str]:
    """Return the whole environment of processes in a domain; what they log goes to `scratch`."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH', ''))))
    return {
        **os.environ, 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1',
        'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOG_DIR': str(scratch / 'ros_log'), **_profile(_PROFILE),
        'OMP_NUM_THREADS': str(inference_threads())}


def without_shared_memory() -> dict[str, str]:
    """
    Return what is different for a process that must not wait for a lock another one holds.

    The controller chooses this by itself, with the lease of 20 seconds.
    """
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SYSTEM_DEFAULT', **_profile(_UDP_PROFILE)}


def _profile(path: Path) -> dict[str, str]:
    names = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'
    return dict.fromkeys(names, str(path))
