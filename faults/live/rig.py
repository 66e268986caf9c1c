"""A simulated arm, its controller and a policy, in processes of their own, and a watch over them.

The settings are those of a fast policy, for which the stop is to come within 100 ms: what is
older is not followed, and a chunk is stretched by no more than half of its length.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import sys
from typing import Any

from faults.live.camera import Camera
from faults.live.children import Children
from faults.live.control import Control
from faults.live.environment import environment
from faults.live.environment import without_shared_memory
from faults.live.watch import Watch
from vla_policy_node import bringup
from vla_policy_node.evaluation.supervisor import reserve_domain_id
from vla_policy_node.nodes.spinning import spinning_node

COMMAND_RATE_HZ = 100.0
COMMAND_TIMEOUT_S = 0.1
SPEED_MPS = 0.08
CONTROLLER = {
    'dry_run': False, 'output_mode': 'twist', 'pose_source': 'topic',
    'command_rate_hz': COMMAND_RATE_HZ, 'command_timeout_s': COMMAND_TIMEOUT_S,
    'overrun_s': 0.02}
POLICY = {'autostart': True, 'image_timeout_s': COMMAND_TIMEOUT_S, 'max_duration_s': 3600.0,
          'image_wait_s': 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """The processes by their node names, the numbers of the stand-in, and the watch."""

    children: Children
    control: Control
    watch: Watch
    control_file: Path
    camera_topic: str

    def start_simulator(self, **parameters: Any) -> None:
        """Start the simulated arm."""
        self.children.start(
            'simulated_robot', bringup.node_process('simulated_robot', **parameters).command())

    def camera(self) -> Camera:
        """
        Return a camera of this process in place of the simulated one, a context manager.

        It takes next to no time: rendering is half of what a small machine can do.
        """
        return Camera(self.watch, lambda: self.watch.get_clock().now().nanoseconds)

    def start_controller(
        self, program: Sequence[str] = (), prefix: Sequence[str] = (),
        log_folder: Path | None = None, **parameters: Any,
    ) -> None:
        """Start the controller, disabled; program: arguments of Python in place of its module."""
        process = bringup.node_process('controller_node', **{**CONTROLLER, **parameters})
        self.children.start(
            'controller_node',
            [sys.executable, *(program or ('-m', process.module)), *process.ros_arguments()],
            prefix=prefix, **without_shared_memory(), **_logging_to(log_folder))

    def start_policy(
        self, prefix: Sequence[str] = (), log_folder: Path | None = None, **parameters: Any,
    ) -> None:
        """Start the policy node around the stand-in; it activates itself."""
        process = bringup.node_process('policy_node', **{**POLICY, **parameters})
        arguments = process.ros_arguments()
        # After the remapping of the demo the first one given wins.
        arguments[1:1] = ['-r', f'~/image:={self.camera_topic}']
        self.children.start(
            'policy_node',
            [sys.executable, '-m', 'faults.live.stand_in', str(self.control_file), *arguments],
            orphan_signal=signal.SIGKILL, prefix=prefix, **_logging_to(log_folder))


def _logging_to(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {'ROS_LOG_DIR': str(folder)}


@contextmanager
def rig(scratch: Path, *, camera_topic: str = bringup.CAMERA_TOPIC, **control: float,
        ) -> Iterator[Rig]:
    """Yield a rig without any process yet; at the end none is left."""
    scratch.mkdir(parents=True, exist_ok=True)
    control_file = scratch / 'control'
    numbers = Control.create(control_file, **control)
    domain, reservation = reserve_domain_id()
    with reservation:
        settings = environment(domain, scratch)
        with (Children(scratch / 'logs', settings) as children,
              _watching(domain, children) as watch):
            yield Rig(children=children, control=numbers, watch=watch,
                      control_file=control_file, camera_topic=camera_topic)


@contextmanager
def _watching(domain: int, children: Children) -> Iterator[Watch]:
    for name, value in without_shared_memory().items():
        # Within pytest there are other nodes in this process, and their settings.
        os.environ.setdefault(name, value)
    with spinning_node(lambda: Watch(children.check), domain) as watch:
        yield watch
