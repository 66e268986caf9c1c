"""
Tool motion to joint targets: differential inverse kinematics by damped least squares.

Knows the arm's joints and the tool site of a MuJoCo model; knows nothing of blocks or tasks.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from vla_policy_node.simulation.scene import ARM_JOINTS
from vla_policy_node.simulation.scene import ARM_KP
from vla_policy_node.simulation.scene import ARM_KV

TOOL_DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # wxyz: half a turn about x
HOME_POSTURE = np.array([0.0, 0.25, 0.0, -2.25, 0.0, 2.5, np.pi / 4])

_DAMPING = 0.02
_POSTURE_GAIN = 0.05
_MAX_JOINT_SPEED_RADPS = 2.5
_SERVO_DELAY_S = ARM_KV / ARM_KP


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionLimits:
    """What the arm's own low-level controller enforces, in `base`, metres and seconds."""

    lower: tuple[float, float, float] = (0.28, -0.30, 0.012)
    upper: tuple[float, float, float] = (0.68, 0.30, 0.32)
    linear_mps: float = 0.5
    angular_radps: float = 2.0
    leash_m: float = 0.03
    """How far the commanded position may run ahead of an arm that is blocked."""


class ToolFollower:
    """Turns tool velocities or tool poses into arm joint targets, one control tick at a time."""

    def __init__(self, model: mujoco.MjModel, limits: MotionLimits) -> None:
        """Prepare a follower for the arm in `model`."""
        self._model = model
        self._limits = limits
        self._data = mujoco.MjData(model)
        self._site = model.site('tool').id
        self._joint_range = np.array([model.joint(name).range for name in ARM_JOINTS])
        self._jacobian = np.zeros((6, model.nv))
        self._arm = len(ARM_JOINTS)
        self.joints = HOME_POSTURE.copy()
        self.position = np.zeros(3)
        self.quaternion = TOOL_DOWN.copy()

    def place(self, position: np.ndarray, quaternion: np.ndarray = TOOL_DOWN) -> np.ndarray:
        """Start at a tool pose; return the (7,) joint positions that reach it."""
        self.joints = HOME_POSTURE.copy()
        self.position = np.array(position, dtype=np.float64)
        self.quaternion = np.array(quaternion, dtype=np.float64)
        for _ in range(100):
            self._approach(1.0)
        return self.joints.copy()

    def advance(self, linear: np.ndarray, angular: np.ndarray, actual: np.ndarray,
                period_s: float) -> np.ndarray:
        """
        Move the commanded pose by a velocity for `period_s`; return (7,) servo targets in rad.

        `linear` (m/s), `angular` (rad/s) and `actual`, the measured tool position, are in `base`.
        """
        limits = self._limits
        step = _capped(linear, limits.linear_mps) * period_s
        self.position = np.clip(self.position + step, limits.lower, limits.upper)
        self.position = actual + _capped(self.position - actual, limits.leash_m)
        mujoco.mju_quatIntegrate(
            self.quaternion, self._in_tool(_capped(angular, limits.angular_radps)), period_s)
        before = self.joints
        self._approach(_MAX_JOINT_SPEED_RADPS * period_s)
        return self.joints + (self.joints - before) * (_SERVO_DELAY_S / period_s)

    def velocity_towards(self, position: np.ndarray, quaternion: np.ndarray,
                         period_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the (linear, angular) velocity that reaches a pose, at best in one period."""
        return (position - self.position) / period_s, self._turn_to(quaternion) / period_s

    def _turn_to(self, quaternion: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Return the (3,) rotation vector in `base` that turns `start` into `quaternion`."""
        start = self.quaternion if start is None else start
        turn, vector = np.zeros(3), np.zeros(3)
        mujoco.mju_subQuat(turn, quaternion, start)
        mujoco.mju_rotVecQuat(vector, turn, start)
        return vector

    def _in_tool(self, vector: np.ndarray) -> np.ndarray:
        """Express a `base` vector in the commanded tool frame, as MuJoCo's integrator wants."""
        inverse, result = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(inverse, self.quaternion)
        mujoco.mju_rotVecQuat(result, vector, inverse)
        return result

    def _approach(self, max_joint_step: float) -> None:
        """Take one damped least-squares step of the joint targets towards the commanded pose."""
        arm, data = self._arm, self._data
        data.qpos[:arm] = self.joints
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_jacSite(
            self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        actual = np.zeros(4)
        mujoco.mju_mat2Quat(actual, data.site_xmat[self._site])
        error = np.concatenate([
            self.position - data.site_xpos[self._site],
            self._turn_to(self.quaternion, actual),
        ])
        step = self._solve(self._jacobian[:, :arm], error)
        step *= min(1.0, max_joint_step / max(np.abs(step).max(), 1e-12))
        self.joints = np.clip(
            self.joints + step, self._joint_range[:, 0], self._joint_range[:, 1])

    def _solve(self, jacobian: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return the (7,) joint step: least squares, plus a pull to the home posture."""
        normal = jacobian @ jacobian.T + _DAMPING ** 2 * np.eye(6)
        pull = _POSTURE_GAIN * (HOME_POSTURE - self.joints)
        return pull + jacobian.T @ np.linalg.solve(normal, error - jacobian @ pull)


def _capped(vector: np.ndarray, length: float) -> np.ndarray:
    """Return `vector`, shortened to `length` if it is longer."""
    norm = np.linalg.norm(vector)
    return vector if norm <= length else vector * (length / norm)
