"""The one table of texts for the states of vla_msgs PolicyStatus and ControllerStatus."""

from vla_msgs.action import ExecuteInstruction
from vla_msgs.msg import PolicyStatus

from vla_policy_node.control.types import STATE_TEXT

POLICY_TEXT = {
    PolicyStatus.UNCONFIGURED: 'no checkpoint is loaded',
    PolicyStatus.INACTIVE: 'loaded, waiting to be activated',
    PolicyStatus.IDLE: 'waiting for an instruction',
    PolicyStatus.RUNNING: 'carrying out the instruction',
    PolicyStatus.WAITING_FOR_IMAGE: 'waiting for a camera frame',
    PolicyStatus.STALE_IMAGE: 'the newest camera frame is too old',
    PolicyStatus.DECODE_FAILED: 'the model gave no valid action',
    PolicyStatus.FAULT: 'stopped by an error',
}

# The controller's states are those of its own room.
CONTROLLER_TEXT = {int(state): text for state, text in STATE_TEXT.items()}

RESULT_TEXT = {
    ExecuteInstruction.Result.NONE: 'done',
    ExecuteInstruction.Result.UNKNOWN: 'stopped by an error',
    ExecuteInstruction.Result.NOT_ACTIVE: 'the policy node is not active',
    ExecuteInstruction.Result.INVALID_INSTRUCTION: 'the instruction is not usable',
    ExecuteInstruction.Result.NO_FRESH_IMAGE: 'no fresh camera frame',
    ExecuteInstruction.Result.DECODE_FAILED: 'the policy could not produce an action',
    ExecuteInstruction.Result.TIMEOUT: 'the time ran out',
    ExecuteInstruction.Result.CANCELED: 'canceled',
    ExecuteInstruction.Result.PREEMPTED: 'a newer instruction took over',
}
