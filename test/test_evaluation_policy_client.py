"""Questions to a policy node are asked again where the answer is lost."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_msgs')

from rclpy.task import Future  # noqa: E402

from vla_policy_node.evaluation import policy_client  # noqa: E402
from vla_policy_node.evaluation.policy_client import PolicyClient  # noqa: E402
from vla_policy_node.evaluation.policy_client import PolicyClientError  # noqa: E402


class Service:
    """A service that answers to one of the requests that it gets, counted from 1."""

    srv_name = '/policy_node/get_state'

    def __init__(self, answered: int) -> None:
        """Start without a request."""
        self.asked = 0
        self.dropped = 0
        self._answered = answered

    def wait_for_service(self, timeout_s: float) -> bool:
        """Return that it is there."""
        return True

    def call_async(self, request: object) -> Future:
        """Return an answer that is there or never comes."""
        self.asked += 1
        future = Future()
        if self.asked == self._answered:
            future.set_result('active')
        return future

    def remove_pending_request(self, future: Future) -> None:
        """Count requests that nobody waits for any more."""
        self.dropped += 1


class Asking(PolicyClient):
    """Without a node, which asking does not need."""

    def __init__(self) -> None:
        """Watch no process."""
        self._check = lambda: None


def test_an_answer_that_does_not_come_is_asked_for_again(monkeypatch) -> None:
    monkeypatch.setattr(policy_client, '_ASK_AGAIN_S', 0.05)
    service = Service(answered=3)
    assert Asking().ask(service, None, 30.0) == 'active'
    assert (service.asked, service.dropped) == (3, 2)


def test_a_service_that_never_answers_is_an_error_in_time(monkeypatch) -> None:
    monkeypatch.setattr(policy_client, '_ASK_AGAIN_S', 0.05)
    with pytest.raises(PolicyClientError, match='expected an answer of /policy_node/get_state'):
        Asking().ask(Service(answered=0), None, 0.2)
