"""A policy node that a recording is played to: a process of our own, or one that runs already."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from contextlib import ExitStack
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus

from vla_policy_node import bringup
from vla_policy_node.evaluation.policy_client import PolicyClient
from vla_policy_node.evaluation.policy_client import PolicyClientError
from vla_policy_node.evaluation.replay.checkpoint_actions import CheckpointActions
from vla_policy_node.evaluation.replay.listener import Listener
from vla_policy_node.evaluation.supervisor import free_domain_id
from vla_policy_node.evaluation.supervisor import Supervisor
from vla_policy_node.nodes.conversions import time_message
from vla_policy_node.nodes.spinning import spinning_node

# Of the program and of its log.
PROGRAM = 'policy_node'

# Loading and warming up a model of billions of weights takes minutes.
_CONFIGURE_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 5.0
# None may be lost between us and the node, however busy we are.
_CHUNKS_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSetup:
    """
    What a node of our own is started with.

    parameters: of the node. parameters_file: YAML given before them. cameras: name in the
    checkpoint -> topic that it hears, the first camera first. is_private: in a DDS domain of its
    own on this machine alone, where it meets neither a robot nor its cameras. logs: folder.
    command: how the process is started.
    """

    parameters: Mapping[str, bool | str]
    cameras: Mapping[str, str]
    is_private: bool
    logs: Path
    parameters_file: Path | None = None
    command: Callable[[bringup.NodeProcess], list[str]] = bringup.NodeProcess.command

    def process(self) -> bringup.NodeProcess:
        """Return the process to start."""
        end = '/compressed' if self.parameters['image_transport'] == 'compressed' else ''
        inputs = [f'~/{name}/image{end}' for name in self.cameras]
        inputs[0] = f'~/image{end}'
        return bringup.NodeProcess(
            name=node_name(), executable=PROGRAM,
            parameters_file=self.parameters_file or bringup.parameters_file(PROGRAM),
            parameters={**self.parameters, 'autostart': False},
            remappings=tuple(zip(inputs, self.cameras.values(), strict=True)))


def node_name() -> str:
    """
    Return the name of a node of our own, which nobody else has.

    So no controller hears what it answers to a recording, recorded answers that another player
    publishes are not taken for its own, and no other policy node is asked in its place.
    """
    return f'replay_{os.getpid()}'


class LiveNode:
    """
    A policy node to play to, as far as a ReplayJob asks also a policy.

    client: asks it. listener: hears it. Close it in the end.
    """

    def __init__(
        self, actions: CheckpointActions, client: PolicyClient, listener: Listener, *,
        check: Callable[[], None], closing: ExitStack,
    ) -> None:
        """Listen; check: raises where going on is pointless. closing: what close() ends."""
        self.action_space = actions.action_space
        self.action_tokenizer = actions.action_tokenizer
        self.camera_names = actions.camera_names
        self.checkpoint_name = actions.checkpoint_name
        self.client = client
        self.listener = listener
        self.check = check
        self._closing = closing
        kept = QoSProfile(depth=_CHUNKS_KEPT, reliability=ReliabilityPolicy.RELIABLE)
        chunks, statuses = _answers_of(client)
        client.create_subscription(EndEffectorDeltaChunk, chunks, listener.on_chunk, kept)
        client.create_subscription(PolicyStatus, statuses, listener.on_status, _CHUNKS_KEPT)

    def await_joined(self) -> None:
        """Wait until what the node says is heard; raises PolicyClientError after a while."""
        chunks, statuses = _answers_of(self.client)
        self.client.wait_until(
            lambda: self.client.count_publishers(chunks) > 0 and self.listener.n_statuses > 0,
            _START_TIMEOUT_S, f'a policy node that publishes {chunks} and {statuses}')

    def await_status(self) -> None:
        """Wait for what the node says next about itself; it does so twice a second."""
        heard = self.listener.n_statuses
        self.client.wait_until(lambda: self.listener.n_statuses > heard, _CALL_TIMEOUT_S,
                               f'the status of {self.client.policy}')

    def picture_publisher(self, topic: str, *, compressed: bool) -> Callable[[bytes], None]:
        """Return what publishes serialised pictures, once the node hears them."""
        # A reliable publisher is heard by every subscriber; it is never held up with one frame.
        publisher = self.client.create_publisher(
            CompressedImage if compressed else Image, topic,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
        self.client.wait_until(lambda: publisher.get_subscription_count() > 0, _START_TIMEOUT_S,
                               f'a subscription of the policy node to {topic}')
        return publisher.publish

    def clock_publisher(self) -> Callable[[int], None]:
        """Return what publishes the time [ns], once the node hears it."""
        publisher = self.client.create_publisher(Clock, '/clock', 10)
        self.client.wait_until(lambda: publisher.get_subscription_count() > 0, _START_TIMEOUT_S,
                               'a subscription of the policy node to /clock; set use_sim_time')
        return lambda time_ns: publisher.publish(Clock(clock=time_message(time_ns)))

    def watch_pictures(self, topic: str, *, compressed: bool) -> None:
        """Let the listener hear the pictures of another player."""
        self.client.create_subscription(
            CompressedImage if compressed else Image, topic, self.listener.on_picture,
            QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT), raw=True)

    def close(self) -> None:
        """Leave the graph and end a process of our own."""
        self._closing.close()


def start_node(actions: CheckpointActions, setup: NodeSetup) -> LiveNode:
    """
    Start a node, let it load its checkpoint, and activate it.

    Raises PolicyClientError with the node's own reason where it refuses, ProcessDiedError.
    """
    environment = {**os.environ, **bringup.dds_environment()}
    if setup.is_private:
        environment.update(ROS_DOMAIN_ID=str(free_domain_id()),
                           ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
    environment.setdefault('OMP_NUM_THREADS', str(bringup.inference_threads()))
    with ExitStack() as opened:
        supervisor = opened.enter_context(Supervisor(setup.logs, environment))
        supervisor.start(PROGRAM, setup.command(setup.process()))
        client = opened.enter_context(_joined(environment, supervisor.check, f'/{node_name()}'))
        node = LiveNode(actions, client, Listener(), check=supervisor.check,
                        closing=opened.pop_all())
    try:
        client.configure(_CONFIGURE_TIMEOUT_S)
        client.activate(_START_TIMEOUT_S)
        node.await_joined()
    except PolicyClientError as error:
        # rclpy's transitions have no text; the node logs why.
        reason = supervisor.printed_after(PROGRAM, ' refused: ')
        node.close()
        raise PolicyClientError(
            f'the policy node refused: {reason}' if reason else str(error)) from error
    except BaseException:
        node.close()
        raise
    return node


def attach_node(
    actions: CheckpointActions, name: str, expected: Mapping[str, str], timeout_s: float,
) -> tuple[LiveNode, dict[str, Any]]:
    """
    Join a node that runs, and return it with its parameters.

    name: the node's, such as /policy_node. expected: parameter -> what the results will say.
    Raises PolicyClientError where nobody answers, where somebody else hears the node's answers, or
    publishes such.
    """
    with ExitStack() as opened:
        client = opened.enter_context(_joined(os.environ, lambda: None, name))
        # At every look: discovery takes a while, and others may be started later.
        node = LiveNode(actions, client, Listener(), check=lambda: _refuse_others(client),
                        closing=opened.pop_all())
    try:
        names = [*expected, 'use_sim_time']
        found = dict(zip(names, _parameters(client, names, timeout_s), strict=True))
        node.await_joined()
        node.check()
    except BaseException:
        node.close()
        raise
    return node, found


@contextmanager
def _joined(
    environment: Mapping[str, str], check: Callable[[], None], policy: str,
) -> Iterator[PolicyClient]:
    """Yield a client that spins in the graph that an environment names."""
    # Read when the first participant is made, by us as by the processes that we start.
    os.environ.update({name: environment[name] for name in (
        *bringup.dds_environment(), 'ROS_AUTOMATIC_DISCOVERY_RANGE') if name in environment})
    with spinning_node(lambda: PolicyClient('replay', check, policy=policy),
                       int(environment.get('ROS_DOMAIN_ID') or 0)) as client:
        yield client


def _parameters(client: PolicyClient, names: list[str], timeout_s: float) -> list[Any]:
    service = client.create_client(GetParameters, f'{client.policy}/get_parameters')
    if not service.wait_for_service(timeout_s):
        raise PolicyClientError(
            f'expected a policy node {client.policy} to attach to within {timeout_s:g} s, found '
            'none; start it in this ROS domain, or name another with --attach')
    values = client.ask(service, GetParameters.Request(names=names), timeout_s).values
    return [rclpy.parameter.parameter_value_to_python(value) for value in values]


def _answers_of(client: PolicyClient) -> tuple[str, str]:
    """Return the topics of chunks and of the status of the node that a client asks."""
    return f'{client.policy}/action_chunk', f'{client.policy}/status'


def _refuse_others(client: PolicyClient) -> None:
    """Raise PolicyClientError where others act on a node's answers, or publish such."""
    topics = _answers_of(client)
    listening = client.get_subscriptions_info_by_topic(topics[0])
    others = {_name_of(info) for info in listening if info.node_name != client.get_name()}
    if others:
        raise PolicyClientError(
            f'expected nobody else to listen to {topics[0]}, found {", ".join(sorted(others))}: '
            'a robot would move by recorded pictures; stop it first')
    for topic in topics:
        if client.count_publishers(topic) > 1:
            raise PolicyClientError(
                f'expected {client.policy} alone to publish {topic}, found somebody else too: '
                'recorded answers would be taken for its own; play with --topics and the cameras')


def _name_of(info: TopicEndpointInfo) -> str:
    # rcl writes so while it knows of an endpoint and not yet of its node.
    if 'UNKNOWN' in info.node_name:
        return 'a node whose name is not known yet'
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'
