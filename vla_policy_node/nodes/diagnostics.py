"""Plain diagnostic_msgs on /diagnostics once a second; no diagnostic_updater needed."""

from collections.abc import Callable
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_msgs.msg import KeyValue
from rclpy.node import Node

from vla_policy_node.nodes.runtime import identity
from vla_policy_node.nodes.runtime import steady_timer

PERIOD_S = 1.0

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

Report = tuple[bytes, str, Mapping[str, object]]


class DiagnosticsPublisher:
    """Publishes what a function reports: level, one line, and values by name."""

    def __init__(self, node: Node, report: Callable[[], Report]) -> None:
        """Publish the first report after one period."""
        self._node = node
        self._report = report
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        steady_timer(node, PERIOD_S, self.publish)

    def publish(self) -> None:
        """Publish one report now."""
        level, message, values = self._report()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [DiagnosticStatus(
            level=level, name=self._node.get_fully_qualified_name(), message=message,
            hardware_id=identity(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])]
        self._publisher.publish(array)
