"""What the controller makes of an instruction, in a few words for whoever gave it."""

from rclpy.node import Node
from vla_msgs.msg import ControllerStatus


class ControllerView:
    """Listens to a controller from now on; spin the node."""

    def __init__(self, node: Node, controller: str) -> None:
        """
        Listen to a controller by its name.

        It need not be there: another program may carry out the chunks.
        """
        self._name = controller
        self._first: ControllerStatus | None = None
        self._latest: ControllerStatus | None = None
        node.create_subscription(ControllerStatus, f'{controller}/status', self._on_status, 10)

    def _on_status(self, status: ControllerStatus) -> None:
        self._first = self._first or status
        self._latest = status

    def now(self) -> str:
        """Return the state in a word or two, such as 'moving'; empty where none was heard."""
        if self._latest is None:
            return ''
        dry_run = ', dry run' if self._latest.dry_run else ''
        return self._latest.state_text.partition(':')[0] + dry_run

    def summary(self) -> str:
        """Return how many chunks were followed since the first status, and why others were not."""
        if self._latest is None:
            return f'{self._name} was not heard'
        first, latest = self._first, self._latest
        followed = latest.chunks_accepted - first.chunks_accepted
        rejected = latest.chunks_rejected - first.chunks_rejected
        text = f'{self._name}: {followed} chunks followed'
        if rejected:
            text += f', {rejected} rejected, the last one: {latest.last_rejection}'
        if latest.dry_run:
            text += '; dry run: nothing was sent to the robot'
        if latest.state == ControllerStatus.FAULT:
            text += f'; {latest.state_text}'
        return text
