"""Settings that every test needs before the first node or renderer is made."""

import os
import socket
import tempfile

import pytest

from vla_policy_node.bringup import dds_environment
from vla_policy_node.evaluation.supervisor import free_domain_id


def _reserved_domain() -> tuple[int, socket.socket]:
    """Return a domain that no other run of the tests uses while the socket is open."""
    while True:
        domain, reservation = free_domain_id(), socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: like the ports of DDS it belongs to the network namespace, and
            # the kernel frees it with the process.
            reservation.bind(f'\0vla_policy_node_tests_{domain}')
        except OSError:
            reservation.close()
        else:
            return domain, reservation


# A domain of their own on this machine alone: tests must neither hear nor command a robot on the
# user's network, nor disturb other tests.
_DOMAIN, _RESERVATION = _reserved_domain()
os.environ['ROS_DOMAIN_ID'] = str(_DOMAIN)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
_LOGS = os.path.join(tempfile.gettempdir(), 'vla_policy_node_tests')
os.environ.setdefault('ROS_LOG_DIR', _LOGS)
os.environ.update(dds_environment())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the unit tests first: they name the cause of what fails after them."""
    items.sort(key=lambda item: item.get_closest_marker('integration') is not None)
