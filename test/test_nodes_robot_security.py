"""The SROS2 policies allow what the two nodes do in the ROS graph, and not one name more."""

from pathlib import Path
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip('rclpy')

from nodes_bench import FakePolicy  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from rclpy.action.graph import get_action_client_names_and_types_by_node  # noqa: E402
from rclpy.action.graph import get_action_server_names_and_types_by_node  # noqa: E402
import ros_interfaces  # noqa: E402

from vla_policy_node.nodes.controller_node import ControllerNode  # noqa: E402
from vla_policy_node.nodes.policy_node import PolicyNode  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / 'sros2' / 'policies.xml'
PREFIX = '/vla/'
# The test has no tf and uses a topic.
TEST_POSE = '/tool_pose_of_the_test'
# What a node only does at times: with use_sim_time, with compressed images, with tf, and while it
# starts beside a namesake.
AT_TIMES = {
    'policy_node': {'/clock', '/diagnostics', '/camera/image_raw/compressed'},
    'controller_node': {'/clock', '/diagnostics', '/tf', '/tf_static'},
}
# Which of them a node has depends on the ROS release.
BY_RELEASE = '/get_type_description'


@pytest.fixture(scope='module', autouse=True)
def interfaces():
    ros_interfaces.provide()


@pytest.fixture(scope='module')
def graph():
    with running_graph() as graph:
        graph.add(PolicyNode(
            lambda _: FakePolicy(), cli_args=[
                '--ros-args', '-r', '~/image:=/camera/image_raw'],
            parameter_overrides=overrides(autostart=True)))
        graph.add(ControllerNode(
            cli_args=['--ros-args', '--params-file', str(ROOT / 'config/robots/ur.yaml'),
                      '-r', '~/action_chunk:=policy_node/action_chunk'],
            parameter_overrides=overrides(
                dry_run=False, pose_source='topic', tool_pose_topic=TEST_POSE)))
        wait_until(lambda: graph.node.count_subscribers('/camera/image_raw'))
        wait_until(lambda: 'subscribe /policy_node/action_chunk' in used(graph, 'controller_node'))
        yield graph


def used(graph, name: str) -> set[str]:
    """Return what a node does in the graph, as '<kind> <name>'."""
    node = graph.node
    actions = {
        'execute': _names(get_action_server_names_and_types_by_node(node, name, '/')),
        'call': _names(get_action_client_names_and_types_by_node(node, name, '/'))}
    parts = tuple(f'{action}/_action/' for names in actions.values() for action in names)
    found = {
        'publish': _names(node.get_publisher_names_and_types_by_node(name, '/')),
        'subscribe': _names(node.get_subscriber_names_and_types_by_node(name, '/')),
        'reply': _names(node.get_service_names_and_types_by_node(name, '/')),
        'request': _names(node.get_client_names_and_types_by_node(name, '/')), **actions}
    return {f'{kind} {entry}' for kind, names in found.items() for entry in names
            if not entry.startswith(parts or '?')}


def _names(pairs: list) -> set[str]:
    return {name for name, _ in pairs}


def allowed(name: str) -> set[str]:
    """Return what the policies allow a node, as '<kind> <name>'."""
    [profile] = ElementTree.parse(POLICIES).findall(
        f".//enclave[@path='{PREFIX}{name}']/profiles/profile[@node='{name}']")
    return {
        f'{kind} {_absolute(entry.text.strip(), name)}'
        for group in profile for kind, verdict in group.attrib.items() for entry in group
        if verdict == 'ALLOW'}


def _absolute(entry: str, node: str) -> str:
    if entry.startswith('~'):
        return f'/{node}{entry[1:]}'
    return entry if entry.startswith('/') else f'/{entry}'


def _without_release(names: set[str]) -> set[str]:
    return {name for name in names if not name.endswith(BY_RELEASE)}


@pytest.mark.parametrize('name', ['policy_node', 'controller_node'])
def test_a_node_may_do_what_it_does_and_nothing_else(graph, name):
    expected = used(graph, name) - {f'subscribe {TEST_POSE}'}
    expected |= {f'subscribe {topic}' for topic in AT_TIMES[name]}
    assert _without_release(allowed(name)) == _without_release(expected)


def test_only_the_policy_node_may_write_actions_and_only_the_controller_commands():
    writers = {}
    for enclave in ElementTree.parse(POLICIES).iter('enclave'):
        for group in enclave.iter('topics'):
            for topic in group if group.get('publish') == 'ALLOW' else ():
                node = enclave.find('.//profile').get('node')
                writers.setdefault(_absolute(topic.text.strip(), node), []).append(
                    enclave.get('path'))
    assert writers['/policy_node/action_chunk'] == ['/vla/policy_node']
    assert writers['/servo_node/delta_twist_cmds'] == ['/vla/controller_node']
    assert writers['/controller_node/emergency_stop'] == ['/vla/operator']


def test_nothing_is_allowed_by_a_pattern():
    names = [entry.text for kind in ('topic', 'service', 'action')
             for entry in ElementTree.parse(POLICIES).iter(kind)]
    assert len(names) > 30
    assert [name for name in names if set('*?[') & set(name)] == []
