"""No node opens a port of its own: what listens is DDS, and that over UDP."""

from pathlib import Path
import re
import subprocess

import psutil
import pytest

pytest.importorskip('rclpy')

from nodes_bench import wait_until  # noqa: E402

from vla_policy_node.bringup import node_process  # noqa: E402

PACKAGE = Path(__file__).resolve().parents[1] / 'vla_policy_node'
# Modules that serve, or that turn bytes from elsewhere into code.
FORBIDDEN = ('socketserver', 'http', 'xmlrpc', 'asyncio', 'multiprocessing.connection', 'grpc',
             'zmq', 'websockets', 'fastapi', 'flask', 'aiohttp', 'pickle', 'cloudpickle')


@pytest.fixture
def start():
    """Start nodes of this package as processes of their own, and end them."""
    processes = []

    def started(name: str) -> psutil.Process:
        process = subprocess.Popen(node_process(name).command(), stderr=subprocess.DEVNULL)
        processes.append(process)
        return psutil.Process(process.pid)

    yield started
    for process in processes:
        process.kill()
        process.wait()


def listening(process: psutil.Process) -> list:
    return [entry for entry in process.net_connections('tcp')
            if entry.status == psutil.CONN_LISTEN]


@pytest.mark.integration
@pytest.mark.parametrize('name', ['policy_node', 'controller_node'])
def test_a_node_listens_on_no_tcp_port(start, name):
    process = start(name)
    # DDS is up when its UDP sockets are.
    wait_until(lambda: len(process.net_connections('udp')) >= 2)
    assert listening(process) == []


def test_no_node_imports_a_server_or_pickle():
    found = [
        f'{path.name}: {line.strip()}'
        for path in (PACKAGE / 'nodes').glob('*.py')
        for line in path.read_text(encoding='utf-8').splitlines()
        if re.match(rf'\s*(import|from) ({"|".join(map(re.escape, FORBIDDEN))})\b', line)]
    assert found == []


def test_no_node_binds_or_listens_by_itself():
    text = {path.name: path.read_text(encoding='utf-8')
            for path in (PACKAGE / 'nodes').glob('*.py')}
    assert [name for name, code in text.items() if re.search(r'\.(bind|listen)\(', code)] == []
