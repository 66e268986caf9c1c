"""
The real policy node around a policy that costs what it is told to, for a process of its own.

    python -m faults.live.stand_in CONTROL_FILE --ros-args ...
"""

from pathlib import Path
import sys
import time
from typing import Any

import numpy as np

# First of all: the ROS wheels start the interpreter anew when rclpy is imported.
import rclpy  # noqa: F401

from faults.live.control import Control
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.nodes.policy_node import PolicyNode
from vla_policy_node.nodes.runtime import run
from vla_policy_node.policy import ActionChunk

PERIOD_S = 0.04

# What `error` of the control chooses from; the texts are those of torch's allocators.
ERRORS = (
    None,
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't "
                 'allocate memory: you tried to allocate 68719476736 bytes. Error code 12 '
                 '(Cannot allocate memory)'),
    MemoryError(),
    type('OutOfMemoryError', (RuntimeError,), {})(
        'CUDA out of memory. Tried to allocate 64.00 GiB. GPU 0 has a total capacity of 24 GiB'),
)


class StandIn:
    """A policy that moves the tool as the control says, whatever it sees."""

    camera_names = ('primary',)

    def __init__(self, control: Control) -> None:
        """Load nothing, or fail as it should; every number is looked up at each inference."""
        _fail(control)
        self._control = control
        self._kept: list[bytes] = []
        self._is_warm = False
        self.action_space = ActionSpace(
            frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=PERIOD_S,
            stats=NormStats(
                q01=np.full(7, -0.05), q99=np.full(7, 0.05), mask=np.ones(7, bool)))

    def action_logits(self, observation: Any) -> np.ndarray:
        """Return what tells images apart."""
        return observation.images['primary'].mean(keepdims=True).reshape(1)

    def infer(self, observation: Any) -> ActionChunk:
        """Take the time it should, then return one step of motion, or fail as it should."""
        control = self._control
        self._wait(control)
        control.inferences += 1
        if control.leak_bytes:
            self._kept.append(b'x' * int(control.leak_bytes))
        _fail(control)
        step = np.array([control.x_mps, control.y_mps, control.z_mps]) * PERIOD_S
        return ActionChunk(
            actions=np.array([[*step, 0.0, 0.0, 0.0, 1.0]]),
            token_ids=np.arange(7).reshape(1, 7), all_token_ids=np.arange(7),
            confidence=np.ones((1, 7), np.float32), timing_ms={'total': 0.0})

    def _wait(self, control: Control) -> None:
        if control.hang:
            control.hung_at_s = time.time()
            while control.hang:
                time.sleep(0.002)
            control.hung_at_s = 0.0
        time.sleep(control.infer_s)

    def answer(self, observation: Any, max_new_tokens: int = 64) -> str:
        """Return nothing."""
        return ''

    def close(self) -> None:
        """Give back what was kept."""
        self._kept.clear()


def _fail(control: Control) -> None:
    if error := ERRORS[int(control.error)]:
        raise error


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    control = Control(Path(sys.argv[1]))
    sys.exit(run(lambda: PolicyNode(lambda _: StandIn(control))))


if __name__ == '__main__':
    main()
