"""The simulated robot: physics, tool commands, camera images and the privileged state."""

from vla_policy_node.simulation.rendering import CameraRenderer  # isort: skip (chooses OpenGL)
from vla_policy_node.simulation.rendering import SimulationError  # isort: skip

from collections.abc import Sequence

import mujoco
import numpy as np

from vla_policy_node.simulation import layout
from vla_policy_node.simulation import scene
from vla_policy_node.simulation.kinematics import MotionLimits
from vla_policy_node.simulation.kinematics import ToolFollower
from vla_policy_node.simulation.scene import COLOURS
from vla_policy_node.simulation.state import SceneState
from vla_policy_node.simulation.tasks import Task

ACTION_PERIOD_S = 0.2
CONTROL_PERIOD_S = 0.01

_PHYSICS_STEPS = round(CONTROL_PERIOD_S / scene.PHYSICS_STEP_S)
_PARKED_Z_M = -5.0  # where absent blocks float, out of every camera's view
_GRIPPER_ACTUATOR = len(scene.ARM_JOINTS)
_OPEN_ABOVE, _CLOSE_BELOW = 0.6, 0.4


class TabletopSim:
    """
    A 7-joint arm with a parallel gripper above a table with coloured blocks.

    Positions are metres in `base`, quaternions are (w, x, y, z). Not thread-safe: images must be
    rendered by the thread that made the simulator.
    """

    def __init__(self, image_size: tuple[int, int] | None = (480, 640), *,
                 limits: MotionLimits | None = None) -> None:
        """
        Build the scene and check that it renders.

        :param image_size: (height, width) of camera images in pixels; None for no camera, which
            needs no OpenGL.
        :param limits: what the arm's own controller enforces.
        :raises SimulationError: if OpenGL is missing or a test frame is garbage.
        """
        self._model = mujoco.MjModel.from_xml_string(scene.build_mjcf(image_size or (480, 640)))
        self._data = mujoco.MjData(self._model)
        self._follower = ToolFollower(self._model, limits or MotionLimits())
        self._tool_site = self._model.site('tool').id
        self._finger_geoms = [self._model.geom(name).id for name in scene.FINGER_JOINTS]
        self._hand_geoms = {*self._finger_geoms, self._model.geom('hand').id}
        self._block_of_geom = {self._model.geom(colour).id: colour for colour in COLOURS}
        self._block_qpos = {colour: self._model.joint(colour).qposadr[0] for colour in COLOURS}
        self._present: tuple[str, ...] = ()
        self._last_contact_s: dict[str, float] = {}
        self._held: str | None = None
        self._owed_s = 0.0
        self._linear, self._angular = np.zeros(3), np.zeros(3)
        self._pose_target: tuple[np.ndarray, np.ndarray] | None = None
        self._renderer = None
        if image_size is not None:
            self._renderer = CameraRenderer(self._model, tuple(image_size))
            self._check_render()
        self.reset(0)

    # Commands

    def reset(self, seed: int, task: Task | None = None) -> Task:
        """
        Start a new scene drawn from `seed`; the same arguments give the same scene.

        :param task: its block will be on the table, with room to do it; drawn if None.
        :return: the task.
        """
        drawn = layout.draw_layout(seed, task)
        self._place(drawn)
        return drawn.task

    def set_twist(self, linear: Sequence[float], angular: Sequence[float] = (0, 0, 0)) -> None:
        """
        Command the tool's velocity in `base`, held until the next command.

        :param linear: (3,) m/s; shortened to the arm's speed limit.
        :param angular: (3,) rad/s about the axes of `base`.
        :raises ValueError: if not three finite numbers each.
        """
        self._linear = _finite('linear velocity', linear, 3)
        self._angular = _finite('angular velocity', angular, 3)
        self._pose_target = None

    def set_pose_target(self, position: Sequence[float], quaternion: Sequence[float]) -> None:
        """
        Command the tool to go to a pose in `base` and to stay there.

        :param position: (3,) metres; clipped to the reachable box.
        :param quaternion: (4,) w, x, y, z, of any length but zero.
        :raises ValueError: if not finite or the quaternion is zero.
        """
        position = _finite('position', position, 3)
        quaternion = _finite('quaternion', quaternion, 4)
        length = np.linalg.norm(quaternion)
        if length < 1e-6:
            raise ValueError('quaternion must not be zero, found (0, 0, 0, 0)')
        self._pose_target = position, quaternion / length

    def set_gripper(self, opening: float) -> None:
        """Command the gripper's opening, 0 closed to 1 open; clipped to that range."""
        opening = float(_finite('gripper opening', [opening], 1)[0])
        self._data.ctrl[_GRIPPER_ACTUATOR] = np.clip(opening, 0, 1) * scene.FINGER_TRAVEL_M

    def step(self, duration_s: float) -> None:
        """
        Advance the physics by `duration_s`.

        It goes in whole control periods of 10 ms; what remains is made up for by later steps.
        """
        self._owed_s += duration_s
        ticks = int(self._owed_s / CONTROL_PERIOD_S + 1e-6)
        self._owed_s -= ticks * CONTROL_PERIOD_S
        for _ in range(ticks):
            self._control()
            mujoco.mj_step(self._model, self._data, _PHYSICS_STEPS)
            self._note_contacts()
        # mj_step leaves derived quantities one step behind; images and poses want them current.
        mujoco.mj_kinematics(self._model, self._data)

    def apply_delta(self, action: Sequence[float]) -> None:
        """
        Carry out one canonical action for one period of 0.2 s, then hold still.

        The gripper is switched as a robot's controller does it: it opens above 0.6, closes below
        0.4 and stays as it was in between.

        :param action: (7,) tool translation in m and rotation vector in rad, in `base`, gripper
            0 closed to 1 open.
        """
        action = _finite('action', action, 7)
        self.set_twist(action[:3] / ACTION_PERIOD_S, action[3:6] / ACTION_PERIOD_S)
        if action[6] > _OPEN_ABOVE:
            self.set_gripper(1.0)
        elif action[6] < _CLOSE_BELOW:
            self.set_gripper(0.0)
        self.step(ACTION_PERIOD_S)
        self.set_twist(np.zeros(3))

    # Measurements

    def tool_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool's (3,) position and (4,) quaternion in `base`."""
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, self._data.site_xmat[self._tool_site])
        return self._data.site_xpos[self._tool_site].copy(), quaternion

    def gripper_opening(self) -> float:
        """Return the measured opening, 0 closed to 1 open."""
        fingers = self._data.qpos[_GRIPPER_ACTUATOR:_GRIPPER_ACTUATOR + 2]
        return float(np.clip(fingers.mean() / scene.FINGER_TRAVEL_M, 0, 1))

    def joint_state(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Return names, (9,) positions and (9,) velocities; rad for the arm, m for the fingers."""
        names = scene.ARM_JOINTS + scene.FINGER_JOINTS
        return names, self._data.qpos[:len(names)].copy(), self._data.qvel[:len(names)].copy()

    def render(self, camera: str = 'front', size: tuple[int, int] | None = None) -> np.ndarray:
        """
        Return what `camera` sees as (H, W, 3) uint8 RGB.

        :param size: (height, width), of the native shape and no larger; native if None.
        :raises ValueError: for an unknown camera or an unfitting size.
        """
        self._place_shadow()
        return self._cameras().render(self._data, camera, size)

    def project(self, points: Sequence[Sequence[float]], camera: str = 'front') -> np.ndarray:
        """Return (N, 2) image coordinates, u right and v down in [0, 1], of (N, 3) points."""
        return self._cameras().project(self._data, points, camera)

    def state(self) -> SceneState:
        """Return the privileged state, for expert, judge and question generator only."""
        return SceneState(
            blocks={colour: self._block_position(colour) for colour in self._present},
            tool=self._data.site_xpos[self._tool_site].copy(),
            gripper=self.gripper_opening(),
            held=self._held,
            last_contact_s=dict(self._last_contact_s),
            time_s=float(self._data.time),
        )

    def close(self) -> None:
        """Free the OpenGL contexts; the simulator renders no more."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # Inside

    def _place(self, drawn: layout.Layout) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:len(scene.ARM_JOINTS)] = self._follower.place(drawn.tool)
        self._data.ctrl[:len(scene.ARM_JOINTS)] = self._follower.joints
        opening = len(scene.ARM_JOINTS)
        self._data.qpos[opening:opening + 2] = scene.FINGER_TRAVEL_M
        self.set_gripper(1.0)
        self.set_twist(np.zeros(3))
        self._present = tuple(drawn.blocks)
        for colour in COLOURS:
            self._place_block(colour, drawn.blocks.get(colour))
        self._last_contact_s, self._held, self._owed_s = {}, None, 0.0
        mujoco.mj_forward(self._model, self._data)

    def _place_block(self, colour: str, pose: tuple[float, float, float] | None) -> None:
        """Put a block at (x, y, yaw) on the table, or out of sight and weightless if None."""
        start = self._block_qpos[colour]
        present = pose is not None
        x, y, yaw = pose if present else (float(COLOURS.index(colour)), 0.0, 0.0)
        z = scene.BLOCK_SIZE_M / 2 if present else _PARKED_Z_M
        self._data.qpos[start:start + 7] = (
            x, y, z, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        self._model.body_gravcomp[self._model.body(colour).id] = 0.0 if present else 1.0

    def _control(self) -> None:
        follower, actual = self._follower, self._data.site_xpos[self._tool_site]
        linear, angular = self._linear, self._angular
        if self._pose_target is not None:
            linear, angular = follower.velocity_towards(*self._pose_target, CONTROL_PERIOD_S)
        self._data.ctrl[:len(scene.ARM_JOINTS)] = follower.advance(
            linear, angular, actual, CONTROL_PERIOD_S)

    def _note_contacts(self) -> None:
        """Remember which blocks the gripper touches now."""
        touching: dict[str, set[int]] = {}
        for first, second in self._data.contact.geom.tolist():
            for part, block in ((first, second), (second, first)):
                if part in self._hand_geoms and block in self._block_of_geom:
                    touching.setdefault(self._block_of_geom[block], set()).add(part)
        self._held = None
        for colour, parts in touching.items():
            self._last_contact_s[colour] = float(self._data.time)
            if parts.issuperset(self._finger_geoms) and self._is_between_fingers(colour):
                self._held = colour

    def _is_between_fingers(self, colour: str) -> bool:
        """Tell a grasped block from one that both finger tips press on from above."""
        above = self._data.site_xpos[self._tool_site, 2] - self._block_position(colour)[2]
        return bool(abs(above) < scene.BLOCK_SIZE_M / 2) and self.gripper_opening() > 0.3

    def _block_position(self, colour: str) -> np.ndarray:
        start = self._block_qpos[colour]
        return self._data.qpos[start:start + 3].copy()

    def _place_shadow(self) -> None:
        """Keep the hand's shadow on the table straight below it, turned with it."""
        x_axis = self._data.site_xmat[self._tool_site].reshape(3, 3)[:, 0]
        yaw = np.arctan2(x_axis[1], x_axis[0])
        self._data.mocap_pos[0, :2] = self._data.site_xpos[self._tool_site, :2]
        self._data.mocap_quat[0] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        mujoco.mj_kinematics(self._model, self._data)

    def _cameras(self) -> CameraRenderer:
        if self._renderer is None:
            raise SimulationError(
                'this simulator has no camera; make it with TabletopSim(image_size=(480, 640))')
        return self._renderer

    def _check_render(self) -> None:
        """Render a known scene and compare it with what must be seen."""
        self._place(layout.CHECK_LAYOUT)
        problem = layout.frame_problem(self.render(), self.project)
        if problem:
            raise SimulationError(
                f'the rendered test frame is garbage ({problem}); update the OpenGL driver or '
                'try MUJOCO_GL=osmesa with libosmesa6 installed')


def _finite(name: str, values: Sequence[float], size: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ValueError(f'{name} must be {size} finite numbers, found {np.array2string(array)}')
    return array
