"""Every interface can be imported and holds the constants its users rely on."""

import pytest
from vla_msgs.action import ExecuteInstruction
from vla_msgs.msg import ControllerStatus
from vla_msgs.msg import EndEffectorDelta
from vla_msgs.msg import EndEffectorDeltaChunk
from vla_msgs.msg import PolicyStatus
from vla_msgs.srv import Ask
from vla_msgs.srv import JudgeTask
from vla_msgs.srv import ResetScene

POLICY_STATES = (
    'UNCONFIGURED', 'INACTIVE', 'IDLE', 'RUNNING', 'WAITING_FOR_IMAGE', 'STALE_IMAGE',
    'DECODE_FAILED', 'FAULT',
)
CONTROLLER_STATES = ('DISABLED', 'WAITING', 'MOVING', 'STOPPING', 'HOLDING', 'FAULT')
ERROR_CODES = (
    'NONE', 'UNKNOWN', 'NOT_ACTIVE', 'INVALID_INSTRUCTION', 'NO_FRESH_IMAGE', 'DECODE_FAILED',
    'TIMEOUT', 'CANCELED', 'PREEMPTED',
)


@pytest.mark.parametrize(('message', 'names'), [
    (PolicyStatus, POLICY_STATES),
    (ControllerStatus, CONTROLLER_STATES),
    (ExecuteInstruction.Result, ERROR_CODES),
])
def test_the_constants_count_from_zero_in_the_documented_order(message, names):
    assert [getattr(message, name) for name in names] == list(range(len(names)))


def test_a_chunk_carries_deltas_with_one_confidence_per_dimension():
    chunk = EndEffectorDeltaChunk(deltas=[EndEffectorDelta(gripper=1.0)])
    assert len(chunk.deltas[0].confidence) == 7
    assert chunk.deltas[0].gripper == 1.0


@pytest.mark.parametrize(('interface', 'fields'), [
    (Ask, {'question', 'max_new_tokens'}),
    (ResetScene, {'seed', 'task'}),
    (JudgeTask, set()),
])
def test_a_service_asks_for_the_documented_fields(interface, fields):
    # rosidl gives an empty message one filler field.
    found = set(interface.Request.get_fields_and_field_types())
    assert found - {'structure_needs_at_least_one_member'} == fields


def test_the_action_goal_is_an_instruction_with_a_longest_duration():
    assert set(ExecuteInstruction.Goal.get_fields_and_field_types()) == {
        'instruction', 'max_duration'}
