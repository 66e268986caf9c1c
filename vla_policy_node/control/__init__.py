"""From chunks of end-effector deltas to limited commands. Knows nothing of ROS or torch."""

from vla_policy_node.control.controller import MotionController
from vla_policy_node.control.loop_timing import LoopTiming
from vla_policy_node.control.parameters import ControlParameters
from vla_policy_node.control.parameters import HANDOVERS
from vla_policy_node.control.parameters import RANGES
from vla_policy_node.control.types import Chunk
from vla_policy_node.control.types import Command
from vla_policy_node.control.types import Counters
from vla_policy_node.control.types import Pose
from vla_policy_node.control.types import Reason
from vla_policy_node.control.types import Rejection
from vla_policy_node.control.types import State
from vla_policy_node.control.types import STATE_TEXT

__all__ = [
    'Chunk',
    'Command',
    'ControlParameters',
    'Counters',
    'HANDOVERS',
    'LoopTiming',
    'MotionController',
    'Pose',
    'RANGES',
    'Reason',
    'Rejection',
    'STATE_TEXT',
    'State',
]
