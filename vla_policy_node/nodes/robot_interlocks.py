"""How people stop the robot: a service, a latched topic, and a deadman switch on a topic."""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

# Late joiners hear a latched stop with the first, and with the second whoever does not latch:
# a subscription that asks for the latched message is not connected to a publisher without one.
_STOP_QOS = (
    QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
)


def offer_stop(node: Node, stop: Callable[[str], object]) -> None:
    """Offer ~/stop, which calls `stop` with the reason."""
    def on_call(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        stop('~/stop was called')
        response.success = True
        response.message = 'stopping; nothing moves until ~/enable is called with true'
        return response
    node.create_service(Trigger, '~/stop', on_call)


def listen_for_stop(node: Node, press: Callable[[bool], object]) -> None:
    """Listen on ~/emergency_stop: `press` is called with whether it is pressed."""
    for qos in _STOP_QOS:
        node.create_subscription(
            Bool, '~/emergency_stop', lambda message: press(message.data), qos)


def listen_for_deadman(node: Node, topic: str, hold: Callable[[bool], object]) -> None:
    """Listen to a deadman switch: `hold` is called with whether it is held."""
    node.create_subscription(
        Bool, topic, lambda message: hold(message.data),
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
