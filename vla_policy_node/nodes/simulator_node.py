"""
Simulator node: looks like a robot with a camera to the other nodes, and nothing more.

Publishes images, joint states and the tool pose; takes twists, poses and gripper commands. What
the simulator knows beside that leaves it only through the services for evaluation.
"""

import array
import math
import sys

from geometry_msgs.msg import PoseStamped
from geometry_msgs.msg import TwistStamped
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_msgs.msg import Header
from vla_msgs.srv import JudgeTask
from vla_msgs.srv import ResetScene

from vla_policy_node.nodes import diagnostics
from vla_policy_node.nodes import parameters
from vla_policy_node.nodes.conversions import components
from vla_policy_node.nodes.conversions import point
from vla_policy_node.nodes.conversions import quaternion_message
from vla_policy_node.nodes.conversions import quaternion_wxyz
from vla_policy_node.nodes.conversions import time_message
from vla_policy_node.nodes.runtime import run
from vla_policy_node.nodes.simulation_thread import RobotState
from vla_policy_node.nodes.simulation_thread import SimulationSettings
from vla_policy_node.nodes.simulation_thread import SimulationThread
from vla_policy_node.nodes.simulator_parameters import PARAMETERS

BASE_FRAME = 'base'
CAMERA_FRAME = 'camera_optical_frame'


class SimulatorNode(Node):
    """Thin: messages in and out of the simulation thread."""

    def __init__(self, **node_options) -> None:
        """
        Build the scene and start it.

        :raises ParameterError: a parameter is unknown or out of range.
        :raises SimulationError: OpenGL is missing or renders garbage.
        """
        super().__init__('simulated_robot', **node_options)
        values = parameters.declare(self, PARAMETERS)
        self._frames_published = 0
        self._images = self.create_publisher(
            Image, 'camera/image_raw',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._joints = self.create_publisher(JointState, 'joint_states', 10)
        self._poses = self.create_publisher(PoseStamped, '~/tool_pose', 10)
        self._simulation = SimulationThread(
            self, SimulationSettings(
                camera_rate_hz=values.camera_rate_hz, state_rate_hz=values.state_rate_hz,
                command_timeout_s=values.command_timeout_s),
            lambda: self.get_clock().now().nanoseconds)
        self._simulation.start(values.seed, values.task)
        self.create_subscription(TwistStamped, '~/delta_twist_cmds', self._on_twist, 1)
        self.create_subscription(PoseStamped, '~/target_pose', self._on_pose, 1)
        self.create_subscription(Float64, '~/gripper_command', self._on_gripper, 1)
        self.create_service(ResetScene, '~/reset', self._on_reset)
        self.create_service(JudgeTask, '~/judge', self._on_judge)
        diagnostics.DiagnosticsPublisher(self, self._diagnose)

    def close(self) -> None:
        """Stop the simulation."""
        self._simulation.stop()

    # From the simulation thread

    def on_frame(self, rgb: np.ndarray, stamp_ns: int) -> None:
        """Publish a camera image."""
        height, width, _ = rgb.shape
        message = Image(
            header=Header(stamp=time_message(stamp_ns), frame_id=CAMERA_FRAME),
            height=height, width=width, encoding='rgb8', step=3 * width)
        # An array.array is taken as it is; other sequences are checked element by element.
        message.data = array.array('B', rgb.tobytes())
        self._images.publish(message)
        self._frames_published += 1

    def on_state(self, state: RobotState, stamp_ns: int) -> None:
        """Publish joint states and tool pose."""
        stamp = time_message(stamp_ns)
        joints = JointState(header=Header(stamp=stamp, frame_id=BASE_FRAME))
        joints.name = list(state.joint_names)
        joints.position = state.joint_positions.tolist()
        joints.velocity = state.joint_velocities.tolist()
        self._joints.publish(joints)
        pose = PoseStamped(header=Header(stamp=stamp, frame_id=BASE_FRAME))
        pose.pose.position = point(state.position)
        pose.pose.orientation = quaternion_message(state.quaternion)
        self._poses.publish(pose)

    # Commands

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = components(message.twist.linear), components(message.twist.angular)
        if self._usable('twist', message.header.frame_id, linear + angular):
            self._simulation.set_twist(linear, angular)

    def _on_pose(self, message: PoseStamped) -> None:
        position = components(message.pose.position)
        quaternion = quaternion_wxyz(message.pose.orientation)
        if not any(quaternion):
            self.get_logger().warning(
                'target pose refused: expected a unit quaternion, found zeros',
                throttle_duration_sec=2.0)
        elif self._usable('target pose', message.header.frame_id, position + quaternion):
            self._simulation.set_pose_target(position, quaternion)

    def _on_gripper(self, message: Float64) -> None:
        if self._usable('gripper command', BASE_FRAME, (message.data,)):
            self._simulation.set_gripper(message.data)

    def _usable(self, what: str, frame: str, numbers: tuple) -> bool:
        problem = ''
        if frame != BASE_FRAME:
            problem = f'expected frame {BASE_FRAME!r}, found {frame!r}'
        elif not all(map(math.isfinite, numbers)):
            problem = f'expected finite numbers, found {numbers}'
        if problem:
            self.get_logger().warning(f'{what} refused: {problem}', throttle_duration_sec=2.0)
        return not problem

    # Evaluation

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response
                  ) -> ResetScene.Response:
        try:
            task = self._simulation.reset(request.seed, request.task)
        except ValueError as error:
            response.message = str(error)
            return response
        response.success, response.task = True, task.name
        response.instruction = task.instruction
        return response

    def _on_judge(self, _: JudgeTask.Request, response: JudgeTask.Response
                  ) -> JudgeTask.Response:
        judge, response.elapsed_s = self._simulation.verdict()
        response.succeeded, response.reason = judge.succeeded, judge.reason
        response.nearest_block = judge.nearest_block
        return response

    def _diagnose(self) -> diagnostics.Report:
        if self._simulation.failure is not None:
            raise RuntimeError(
                f'the simulation ended: {self._simulation.failure}') from self._simulation.failure
        return diagnostics.OK, 'running', {'frames_published': self._frames_published}


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run(SimulatorNode))


if __name__ == '__main__':
    main()
