"""A controller under random limits, with a robot, an oracle, and an optional twin beside it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from faults.motion_oracle import MotionOracle
from faults.motion_oracle import Robot
from faults.parts.bad_chunks import Moment
from vla_policy_node.control import Chunk
from vla_policy_node.control import ControlParameters
from vla_policy_node.control import MotionController

Make = Callable[..., MotionController]

_UNTURNED = (1.0, 0.0, 0.0, 0.0)
_START = np.array([0.5, 0.0, 0.3])
_BOX = {'workspace_min_m': (0.4, -0.1, 0.25), 'workspace_max_m': (0.6, 0.1, 0.35)}
# What lies at the lower end of float64.
_DENORMALS = (5e-324, -5e-324, 2.2e-308, -1e-310, 0.0, -0.0, 1e-200)


def random_limits(rng: np.random.Generator) -> ControlParameters:
    """Return limits from crawling to hasty, with every way of handing over chunks."""
    def jerk() -> float:
        return float(rng.uniform(0.5, 500.0)) if rng.integers(3) == 0 else 0.0

    return ControlParameters(
        command_period_s=rng.uniform(0.005, 0.03),
        command_timeout_s=rng.uniform(0.2, 1.0),
        pose_timeout_s=rng.uniform(0.05, 0.3),
        max_linear_mps=rng.uniform(0.02, 1.0),
        max_angular_radps=rng.uniform(0.05, 3.0),
        max_linear_mps2=rng.uniform(0.1, 20.0),
        max_angular_radps2=rng.uniform(0.5, 40.0),
        max_linear_mps3=jerk(),
        max_angular_radps3=jerk(),
        max_delta_m=rng.uniform(0.001, 0.2),
        max_delta_rad=rng.uniform(0.01, 1.0),
        smoothing_s=rng.uniform(0.01, 0.3) if rng.integers(4) == 0 else 0.0,
        chunk_handover=('replace', 'blend', 'ensemble')[rng.integers(3)],
        pose_output=bool(rng.integers(2)),
        **_BOX)


class Play:
    """Time, robot, policy and oracle for one controller; a twin gets the good chunks only."""

    def __init__(
        self, rng: np.random.Generator, make: Make, *, twin: bool = False, deadman: bool = False,
        limits: ControlParameters | None = None,
    ) -> None:
        self.rng = rng
        self.limits = limits or random_limits(rng)
        self.robot = Robot(_START)
        self.oracle = MotionOracle(self.limits, self.robot)
        self.controller = make(self.limits, deadman=deadman)
        self.twin = make(self.limits, deadman=deadman) if twin else None
        self.controllers = [self.controller, *([self.twin] if twin else [])]
        self.period_s = float(rng.uniform(0.02, 0.3))
        self.sequence = int(rng.integers(1, 2 ** 40))
        self.accepted: Chunk | None = None
        self.fresh_until_s = -np.inf
        self.clock_runs = True
        self.command: Any = None
        for controller in self.controllers:
            controller.set_enabled(True)
        # Chunks seen before the enabling are refused.
        self.tick()

    @property
    def moment(self) -> Moment:
        """The present, as spoilers want it."""
        return Moment(
            limits=self.limits, ros_s=self.robot.ros_s, mono_s=self.robot.mono_s,
            last_sequence=self.accepted.sequence,
            last_stamp_s=self.accepted.observation_stamp_s)

    @property
    def needs_chunk(self) -> bool:
        """Whether the last accepted chunk is old enough for the next one."""
        return self.robot.mono_s > self.fresh_until_s - 0.6 * self.limits.command_timeout_s

    def chunk(self, deltas: np.ndarray | None = None, **fields: Any) -> Chunk:
        """Return the next good chunk, observed now."""
        deltas = random_deltas(self.rng) if deltas is None else deltas
        return Chunk(**{
            'frame': self.limits.base_frame, 'sequence': self.sequence + 1,
            'observation_stamp_s': self.robot.ros_s, 'period_s': self.period_s,
            'deltas': deltas, 'terminate': (False,) * len(deltas), 'publisher': 'policy',
            **fields})

    def offer(self, chunk: Chunk) -> Any:
        """Offer a chunk to the controller alone; return its rejection or None."""
        return self.controller.accept(chunk, self.robot.ros_s, self.robot.mono_s)

    def feed(self, chunk: Chunk) -> str | None:
        """Offer a good chunk to everyone; return what is wrong where it is refused."""
        for controller in self.controllers:
            rejection = controller.accept(chunk, self.robot.ros_s, self.robot.mono_s)
            if rejection is not None:
                return f'a good chunk was refused: {rejection}'
        self.sequence, self.accepted = chunk.sequence, chunk
        self.fresh_until_s = self.robot.mono_s + self.limits.command_timeout_s
        return None

    def halt(self) -> None:
        """Note that nothing accepted so far may be followed any more."""
        self.fresh_until_s = -np.inf

    def tick(self, dt_s: float | None = None) -> str | None:
        """Let a moment pass; return what is wrong with the command after it, or None."""
        if dt_s is None:
            dt_s = float(self.rng.uniform(0.1, 2.0)) * self.limits.command_period_s
        self.robot.wait(dt_s, clock_runs=self.clock_runs)
        commands = []
        for controller in self.controllers:
            controller.update_pose(self.robot.position, _UNTURNED, self.robot.ros_s)
            commands.append(controller.tick(self.robot.ros_s, self.robot.mono_s))
        self.command = commands[0]
        self.robot.follow(self.command)
        period_s = None if self.limits.max_linear_mps3 or self.limits.max_angular_radps3 \
            else self.period_s
        return (
            self.oracle.fault(
                self.command, dt_s, may_move=self.robot.mono_s <= self.fresh_until_s,
                period_s=period_s)
            or (_difference(*commands) if self.twin else None))


def random_deltas(rng: np.random.Generator) -> np.ndarray:
    """Return (K, 7) acceptable numbers: ordinary, large or denormal ones."""
    count = int(rng.integers(1, 5))
    size = 10.0 ** rng.uniform(-3.0, 0.0)
    deltas = rng.uniform(-size, size, (count, 7))
    deltas[:, 6] = rng.uniform(-1.0, 2.0, count)
    if rng.integers(8) == 0:
        deltas[rng.integers(count), rng.integers(7)] = _DENORMALS[rng.integers(len(_DENORMALS))]
    return deltas


def _difference(command: Any, expected: Any) -> str | None:
    """Return how a command differs from that of a controller which never saw the bad chunks."""
    found, wanted = _fields(command), _fields(expected)
    return None if found == wanted else f'command {found} instead of {wanted}'


def _fields(command: Any) -> tuple | None:
    if command is None:
        return None
    return (command.linear.tolist(), command.angular.tolist(), command.gripper,
            command.state.name, command.sequence)
