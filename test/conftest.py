"""Settings that every test needs before the first node or renderer is made."""

import os
import tempfile

import pytest

from vla_policy_node.bringup import dds_environment

# A domain of their own: tests must neither hear nor command a robot on the user's network.
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
_LOGS = os.path.join(tempfile.gettempdir(), 'vla_policy_node_tests')
os.environ.setdefault('ROS_LOG_DIR', _LOGS)
os.environ.update(dds_environment())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the unit tests first: they name the cause of what fails after them."""
    items.sort(key=lambda item: item.get_closest_marker('integration') is not None)
