"""Where the commands go: a topic of twists or of poses, published by nobody else."""

from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node

from vla_policy_node.control import Command
from vla_policy_node.nodes.conversions import point
from vla_policy_node.nodes.conversions import quaternion_message
from vla_policy_node.nodes.conversions import vector


class TwistOutput:
    """Velocities as TwistStamped, stamped when they are sent."""

    def __init__(self, node: Node, topic: str, frame: str) -> None:
        """Advertise a topic of commands in a frame; nothing is kept for late listeners."""
        self._clock, self._frame = node.get_clock(), frame
        self._publisher = node.create_publisher(TwistStamped, topic, 1)
        self.topic = self._publisher.topic_name

    def send(self, command: Command) -> None:
        """Publish the velocity of a command."""
        message = TwistStamped()
        message.header.stamp = self._clock.now().to_msg()
        message.header.frame_id = self._frame
        message.twist.linear = vector(command.linear)
        message.twist.angular = vector(command.angular)
        self._publisher.publish(message)


class PoseOutput:
    """Target poses as PoseStamped, stamped when they are sent."""

    def __init__(self, node: Node, topic: str, frame: str) -> None:
        """Advertise a topic of targets in a frame; nothing is kept for late listeners."""
        self._clock, self._frame = node.get_clock(), frame
        self._publisher = node.create_publisher(PoseStamped, topic, 1)
        self.topic = self._publisher.topic_name

    def send(self, command: Command) -> None:
        """Publish the target of a command; nothing while there is none."""
        if command.pose is None:
            return
        message = PoseStamped()
        message.header.stamp = self._clock.now().to_msg()
        message.header.frame_id = self._frame
        message.pose.position = point(command.pose.position)
        message.pose.orientation = quaternion_message(command.pose.quaternion)
        self._publisher.publish(message)


def topic_of(node: Node, private_name: str, parameter: str) -> str:
    """
    Return the topic behind a private name: remapped, else as the parameter says, else itself.

    A remapping wins, as what is on the command line wins over what is in a file.
    """
    own = node.get_fully_qualified_name() + private_name.removeprefix('~')
    remapped = node.resolve_topic_name(private_name) != own
    return private_name if remapped or not parameter else parameter


def publishers(node: Node, topic: str) -> list[tuple[str, str]]:
    """Return full node name and identity of every publisher of a topic."""
    return [
        (f'{info.node_namespace.rstrip("/")}/{info.node_name}', bytes(info.endpoint_gid).hex())
        for info in node.get_publishers_info_by_topic(topic)]


def intruders(node: Node, topic: str) -> str:
    """Return the names of the other nodes that publish on a topic of this node, '' for none."""
    # Counting takes microseconds and asking for names does not, and this is asked at every tick.
    if node.count_publishers(topic) <= 1:
        return ''
    names = [name for name, _ in publishers(node, topic)]
    own = node.get_fully_qualified_name()
    if own in names:
        names.remove(own)
    return ', '.join(names)
