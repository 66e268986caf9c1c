"""Settings that every test needs before the first node or renderer is made."""

from collections.abc import Iterator
import ctypes
import os
import tempfile
import threading

import pytest

from vla_policy_node.bringup import dds_environment
from vla_policy_node.evaluation.supervisor import reserve_domain_id

# A domain of their own on this machine alone: tests must neither hear nor command a robot on the
# user's network, nor disturb other tests.
_DOMAIN, _RESERVATION = reserve_domain_id()
os.environ['ROS_DOMAIN_ID'] = str(_DOMAIN)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
_LOGS = os.path.join(tempfile.gettempdir(), 'vla_policy_node_tests')
os.environ.setdefault('ROS_LOG_DIR', _LOGS)
os.environ.update(dds_environment())


def scheduling() -> tuple[int, int]:
    """Return this thread's policy by the kernel and by the C library, which DDS asks."""
    noted, priority = ctypes.c_int(), ctypes.c_int()
    ctypes.CDLL(None).pthread_getschedparam(
        ctypes.c_ulong(threading.get_ident()), ctypes.byref(noted), ctypes.byref(priority))
    return os.sched_getscheduler(0), noted.value


_SCHEDULING = scheduling()


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """Let no test leave a real-time priority behind, which starves those after it."""
    yield
    assert scheduling() == _SCHEDULING, 'expected the scheduling of the start'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, integration last: they name the cause of what fails after them."""
    for item in items:
        # Nodes take their time to find each other.
        if item.path.name.startswith('test_nodes_'):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker('integration'):
        return 2
    return 1 if item.get_closest_marker('slow') else 0
