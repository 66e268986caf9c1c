"""A controller node over real DDS, its policy, and an ear on all that it publishes."""

from collections.abc import Callable
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
from nodes_bench import delta_chunk
from nodes_bench import Graph
from nodes_bench import overrides
from nodes_bench import wait_until
from std_msgs.msg import Float64
from std_srvs.srv import SetBool
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.nodes.controller_node import ControllerNode
from vla_policy_node.nodes.conversions import time_ns

NAME = '/controller_node'


class Bench:
    """
    A controller without a workspace box, and an ear on all that it publishes.

    On a busy machine messages and ticks are late, so tests act until something is seen, and
    compare stamps instead of counting what has come so far.
    """

    def __init__(
        self, graph: Graph, twist_topic: str = f'{NAME}/delta_twist_cmds', **values,
    ) -> None:
        settings = {
            'dry_run': False, 'pose_source': 'none', 'workspace_enabled': False, **values}
        self.graph = graph
        self.node = graph.add(ControllerNode(parameter_overrides=overrides(**settings)))
        self.twists = graph.collect(TwistStamped, twist_topic)
        self.poses = graph.collect(PoseStamped, f'{NAME}/target_pose')
        self.grips = graph.collect(Float64, f'{NAME}/gripper_command')
        self.statuses = graph.collect(ControllerStatus, f'{NAME}/status')
        self.publisher = graph.node.create_publisher(
            EndEffectorDeltaChunk, f'{NAME}/action_chunk', 1)
        self.sequence = 0
        wait_until(lambda: self.publisher.get_subscription_count() == 1)
        wait_until(lambda: self.statuses)
        if not settings['dry_run'] and 'gripper_interface' not in values:
            wait_until(lambda: graph.node.count_publishers(f'{NAME}/gripper_command') == 1)

    def ask_to_enable(self, value: bool = True) -> SetBool.Response:
        return self.graph.call(SetBool, f'{NAME}/enable', SetBool.Request(data=value))

    def enable(self, value: bool = True) -> None:
        answer = self.ask_to_enable(value)
        assert answer.success, answer.message

    def act(self, **values) -> None:
        self.sequence += 1
        self.publisher.publish(delta_chunk(self.graph.node, self.sequence, **values))

    def act_for(self, duration_s: float, **values) -> None:
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            self.act(**values)
            time.sleep(0.05)

    def act_until(self, condition: Callable[[], Any], **values) -> Any:
        """Send fresh actions until a condition has a true value, and return that."""
        def value() -> Any:
            self.act(**values)
            time.sleep(0.05)
            return condition()
        return wait_until(value)

    def moving(self) -> list[TwistStamped]:
        return [twist for twist in self.twists if twist.twist.linear.x > 0]

    def now_ns(self) -> int:
        return self.graph.node.get_clock().now().nanoseconds

    def sent_after(self, time_: int) -> list[TwistStamped]:
        return [twist for twist in self.twists if time_ns(twist.header.stamp) > time_]

    def status(self) -> ControllerStatus:
        return self.statuses[-1]

    def expect_rest(self, duration_s: float = 0.3) -> None:
        """Send fresh actions for a while; fail if one of them makes the controller move."""
        self.act_until(lambda: self.node.controller.silent)
        silent_ns = self.now_ns()
        self.act_for(duration_s)
        assert self.sent_after(silent_ns) == []
