"""Who gives an instruction hears what the controller makes of it."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_msgs')

from vla_msgs.msg import ControllerStatus  # noqa: E402

from vla_policy_node.nodes.controller_view import ControllerView  # noqa: E402
from vla_policy_node.nodes.status import CONTROLLER_TEXT  # noqa: E402


class Listening:
    """Stands for a node; hands over what the controller says."""

    def create_subscription(self, kind, topic, callback, depth) -> None:
        assert (kind, topic) == (ControllerStatus, '/controller_node/status')
        self.say = callback


def status(state: int, accepted: int = 0, rejected: int = 0, **fields) -> ControllerStatus:
    return ControllerStatus(
        state=state, state_text=CONTROLLER_TEXT[state], chunks_accepted=accepted,
        chunks_rejected=rejected, **fields)


@pytest.fixture
def node() -> Listening:
    return Listening()


@pytest.fixture
def view(node) -> ControllerView:
    return ControllerView(node, '/controller_node')


def test_a_controller_that_is_not_there_is_said_to_be_unheard(view):
    assert view.now() == ''
    assert view.summary() == '/controller_node was not heard'


def test_what_was_followed_counts_from_the_beginning_of_the_instruction(node, view):
    node.say(status(ControllerStatus.WAITING, accepted=40, rejected=3))
    node.say(status(ControllerStatus.MOVING, accepted=51, rejected=3))
    assert view.now() == 'moving'
    assert view.summary() == '/controller_node: 11 chunks followed'


def test_why_nothing_moves_is_said(node, view):
    node.say(status(ControllerStatus.DISABLED, dry_run=True))
    node.say(status(ControllerStatus.DISABLED, rejected=5, dry_run=True,
                    last_rejection='disabled: call ~/enable'))
    assert view.now() == 'disabled, dry run'
    assert view.summary() == (
        '/controller_node: 0 chunks followed, 5 rejected, the last one: disabled: call ~/enable; '
        'dry run: nothing was sent to the robot')
    node.say(status(ControllerStatus.FAULT))
    assert view.summary().endswith('; ' + CONTROLLER_TEXT[ControllerStatus.FAULT])
