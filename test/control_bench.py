"""A controller on a bench: two injected clocks and a robot that does exactly what it is told."""

import numpy as np

from vla_policy_node.control import Chunk
from vla_policy_node.control import ControlParameters
from vla_policy_node.control import MotionController

PERIOD_S = 0.2
TICK_S = 0.02
UNTURNED = (1.0, 0.0, 0.0, 0.0)


def delta(x=0.0, y=0.0, z=0.0, rx=0.0, ry=0.0, rz=0.0, gripper=0.5):
    """Return one row of seven numbers."""
    return [x, y, z, rx, ry, rz, gripper]


class Bench:
    """Plays clock, camera, policy and robot for one MotionController."""

    def __init__(self, *, enabled=True, deadman=False, position=(0.5, 0.0, 0.3), **parameters):
        self.parameters = ControlParameters(**parameters)
        self.controller = MotionController(self.parameters, deadman=deadman)
        self.ros_s = 100000.0
        self.mono_s = 50.0
        self.position = np.array(position)
        self.sequence = 0
        self.command = None
        self.pose_known = True
        self.clock_runs = True
        if enabled:
            self.controller.set_enabled(True)

    def chunk(self, *deltas, **changes):
        """Return a good chunk, observed now, with fields changed."""
        self.sequence += 1
        fields = {
            'frame': 'base',
            'sequence': self.sequence,
            'observation_stamp_s': self.ros_s,
            'period_s': PERIOD_S,
            'deltas': np.array(deltas or [delta(x=0.02)], dtype=np.float64),
            'publisher': 'policy',
        }
        fields.update(changes)
        fields.setdefault('terminate', (False,) * len(fields['deltas']))
        return Chunk(**fields)

    def send(self, *deltas, **changes):
        """Offer a chunk to the controller; return its rejection or None."""
        chunk = self.chunk(*deltas, **changes)
        return self.controller.accept(chunk, self.ros_s, self.mono_s)

    def tick(self, dt_s=TICK_S):
        """Let dt_s pass, during which the robot follows the last command; return the next."""
        if self.command is not None:
            self.position = self.position + self.command.linear * dt_s
        self.ros_s += dt_s if self.clock_runs else 0.0
        self.mono_s += dt_s
        if self.pose_known:
            self.controller.update_pose(self.position, UNTURNED, self.ros_s)
        self.command = self.controller.tick(self.ros_s, self.mono_s)
        return self.command

    def run(self, duration_s):
        """Tick for a while; return all commands, None for silence."""
        return [self.tick() for _ in range(round(duration_s / TICK_S))]

    def run_fed(self, duration_s, *deltas):
        """Tick for a while with a fresh chunk, accepted, every period; return all commands."""
        commands = []
        for number in range(round(duration_s / TICK_S)):
            if number % round(PERIOD_S / TICK_S) == 0:
                assert self.send(*deltas) is None
            commands.append(self.tick())
        return commands

    def hold_deadman(self, held=True):
        """Hold the deadman switch or let go of it."""
        self.controller.hold_deadman(held, self.mono_s)


def speed(command):
    """Return the linear speed of a command [m/s]."""
    return float(np.linalg.norm(command.linear))
