"""
The thread that owns the simulator: steps it in real time, renders, resets, judges.

One thread for all of it, because an OpenGL context belongs to the thread that made it. Knows
nothing of rclpy.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
import queue
import threading
import time
from typing import Protocol
from typing import TypeVar

import numpy as np

from vla_policy_node.simulation import parse_task
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TaskJudge

T = TypeVar('T')

_STEP_S = 0.01
# A machine that falls further behind runs in slow motion instead of catching up.
_LONGEST_STEP_S = 0.1
_CAMERA = 'front'


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotState:
    """What a robot reports: tool pose in base (w x y z), and joints."""

    position: np.ndarray
    quaternion: np.ndarray
    joint_names: tuple[str, ...]
    joint_positions: np.ndarray
    joint_velocities: np.ndarray


class SimulationListener(Protocol):
    """Who gets what the robot reports, called from the simulator's thread."""

    def on_state(self, state: RobotState, stamp_ns: int) -> None:
        """Take the state of the robot at a time [ns]."""

    def on_frame(self, rgb: np.ndarray, stamp_ns: int) -> None:
        """Take (H, W, 3) uint8 RGB and the time of the state that it shows [ns]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """Rates [Hz], and how long a twist holds without a new one [s]."""

    camera_rate_hz: float
    state_rate_hz: float
    command_timeout_s: float


class SimulationThread:
    """Runs a TabletopSim in real time; commands are taken from any thread."""

    def __init__(
        self, listener: SimulationListener, settings: SimulationSettings,
        now_ns: Callable[[], int],
    ) -> None:
        """Prepare; `start` begins. now_ns: the clock of the stamps [ns]."""
        self._listener = listener
        self._settings = settings
        self._now_ns = now_ns
        self._jobs: queue.SimpleQueue[Callable[[TabletopSim], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='simulation', daemon=True)
        self._ready: Future[None] = Future()
        self._stopping = threading.Event()
        self._twist_s: float | None = None
        self._judge: TaskJudge | None = None
        self.failure: Exception | None = None

    def start(self, seed: int, task: str) -> None:
        """Build the scene and begin; raises what building raised."""
        self._thread.start()
        self._ready.result()
        self.reset(seed, task)

    def stop(self) -> None:
        """End the simulation."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def set_twist(self, linear: tuple, angular: tuple) -> None:
        """Command a velocity of the tool in base [m/s], [rad/s]; it holds for a short time."""
        def command(sim: TabletopSim) -> None:
            sim.set_twist(linear, angular)
            self._twist_s = time.monotonic()
        self._jobs.put(command)

    def set_pose_target(self, position: tuple, quaternion: tuple) -> None:
        """Command a pose of the tool in base [m], w x y z; it holds until the next command."""
        def command(sim: TabletopSim) -> None:
            sim.set_pose_target(position, quaternion)
            self._twist_s = None
        self._jobs.put(command)

    def set_gripper(self, opening: float) -> None:
        """Command the gripper, 0 closed to 1 open."""
        self._jobs.put(lambda sim: sim.set_gripper(opening))

    def reset(self, seed: int, task: str) -> Task:
        """Start a new scene; raises ValueError for an unknown task."""
        wanted = parse_task(task) if task else None

        def command(sim: TabletopSim) -> Task:
            self._twist_s = None
            drawn = sim.reset(seed, wanted)
            self._judge = TaskJudge(drawn, sim.state())
            return drawn
        return self._call(command)

    def verdict(self) -> tuple[TaskJudge, float]:
        """Return the judge of the task in force and the simulated time since the reset [s]."""
        return self._call(lambda sim: (self._judge, sim.state().time_s))

    def _call(self, command: Callable[[TabletopSim], T]) -> T:
        done: Future[T] = Future()

        def job(sim: TabletopSim) -> None:
            try:
                done.set_result(command(sim))
            except Exception as error:
                done.set_exception(error)
        self._jobs.put(job)
        return done.result(timeout=5.0)

    def _run(self) -> None:
        try:
            sim = TabletopSim()
        except Exception as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            self._loop(sim)
        except Exception as error:
            self.failure = error
        finally:
            sim.close()

    def _loop(self, sim: TabletopSim) -> None:
        settings = self._settings
        state_period_s, frame_period_s = 1 / settings.state_rate_hz, 1 / settings.camera_rate_hz
        stepped_s = next_state_s = next_frame_s = next_s = time.monotonic()
        while not self._stopping.is_set():
            now_s = time.monotonic()
            self._take_commands(sim, now_s)
            sim.step(min(now_s - stepped_s, _LONGEST_STEP_S))
            stepped_s, stamp_ns = now_s, self._now_ns()
            if self._judge is not None:
                self._judge.update(sim.state())
            if now_s >= next_state_s:
                next_state_s = _next_due(next_state_s, state_period_s, now_s)
                self._listener.on_state(_robot_state(sim), stamp_ns)
            if now_s >= next_frame_s:
                next_frame_s = _next_due(next_frame_s, frame_period_s, now_s)
                self._listener.on_frame(sim.render(_CAMERA), stamp_ns)
            next_s = max(next_s + _STEP_S, time.monotonic())
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _take_commands(self, sim: TabletopSim, now_s: float) -> None:
        while not self._jobs.empty():
            self._jobs.get()(sim)
        # Like a real servo: whoever stops talking, stops the arm.
        if self._twist_s is not None and now_s - self._twist_s > self._settings.command_timeout_s:
            sim.set_twist((0.0, 0.0, 0.0))
            self._twist_s = None


def _next_due(due_s: float, period_s: float, now_s: float) -> float:
    """Return when something periodic is due again; it does not catch up on what it missed."""
    due_s += period_s
    return due_s if due_s > now_s else now_s + period_s


def _robot_state(sim: TabletopSim) -> RobotState:
    position, quaternion = sim.tool_pose()
    names, positions, velocities = sim.joint_state()
    return RobotState(
        position=position, quaternion=quaternion, joint_names=names, joint_positions=positions,
        joint_velocities=velocities)
