"""
Latency from the stamp of a camera frame to the robot command, without the model's time.

Starts a camera, the real policy node with a policy that costs nothing, and the real controller,
each in a process of its own over DDS, and watches what they report:

    . tools/env.sh && python benchmarks/latency.py --frames 1000 --rate 30

Prints a table and, as the last line, the same as JSON. Exit code 1 where a target is missed.
"""

import argparse
import array
from collections.abc import Callable
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np

TARGETS_MS = {'p50': 6.0, 'p99': 15.0}

# The rest of the imports happen after the environment is set, see _set_environment.

_IMAGE_TOPIC = '/policy_node/image'
_START_S = 60.0


def _set_environment() -> None:
    """Set what must be in place before the first DDS participant."""
    from vla_policy_node.bringup import dds_environment
    os.environ.update(dds_environment())
    # A domain of its own: nothing else is heard or commanded.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)


def _camera(frames: int, rate_hz: float) -> None:
    """Publish grey 640x480 images with true stamps."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.qos import ReliabilityPolicy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = Node('camera')
    publisher = node.create_publisher(
        Image, _IMAGE_TOPIC, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    data = array.array('B', bytes([128]) * (640 * 480 * 3))
    while publisher.get_subscription_count() < 1:
        time.sleep(0.05)
    # The controller follows only what was seen after it was enabled: wait for the word.
    sys.stdin.readline()
    due_s = time.monotonic()
    for _ in range(frames):
        message = Image(height=480, width=640, step=1920, encoding='rgb8')
        message.data = data
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        due_s += 1.0 / rate_hz
        time.sleep(max(0.0, due_s - time.monotonic()))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()


class FreePolicy:
    """A policy that costs nothing: it answers every image with the same action."""

    camera_names = ('primary',)

    def __init__(self) -> None:
        """Prepare the one chunk."""
        from vla_policy_node.action_space import ActionSpace
        from vla_policy_node.action_space import NormStats
        from vla_policy_node.policy import ActionChunk
        self.action_space = ActionSpace(
            frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.2,
            stats=NormStats(
                q01=np.full(7, -0.05), q99=np.full(7, 0.05), mask=np.ones(7, bool)))
        self._chunk = ActionChunk(
            actions=np.array([[0.01, 0, 0, 0, 0, 0, 1.0]]),
            token_ids=np.arange(7).reshape(1, 7), all_token_ids=np.arange(7),
            confidence=np.ones((1, 7), np.float32), timing_ms={'total': 0.0})

    def action_logits(self, observation: object) -> np.ndarray:
        """Return what tells images apart."""
        return observation.images['primary'].mean(keepdims=True).reshape(1)

    def infer(self, observation: object) -> object:
        """Return the one chunk."""
        return self._chunk

    def answer(self, observation: object, max_new_tokens: int = 64) -> str:
        """Return nothing."""
        return ''

    def close(self) -> None:
        """Do nothing."""


def _policy() -> None:
    from vla_policy_node.nodes.policy_node import PolicyNode
    from vla_policy_node.nodes.runtime import run
    sys.exit(run(lambda: PolicyNode(lambda _: FreePolicy())))


def _start(role: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, '--role', role, *arguments], stdin=subprocess.PIPE, text=True)


def _processes(frames: int, rate_hz: float) -> list[subprocess.Popen]:
    """Start camera, policy and controller; each finds its parameters on its command line."""
    controller = [
        sys.executable, '-m', 'vla_policy_node.nodes.controller_node', '--ros-args',
        '-r', '~/action_chunk:=/policy_node/action_chunk', '-p', 'dry_run:=false',
        '-p', 'pose_source:=none', '-p', 'workspace_enabled:=false']
    return [
        _start('camera', '--frames', str(frames), '--rate', str(rate_hz)),
        _start('policy', '--ros-args', '-p', 'autostart:=true', '-p', 'rate_hz:=1000.0',
               '-p', 'image_wait_s:=60.0', '-p', 'max_duration_s:=3600.0'),
        subprocess.Popen(controller),
    ]


class Observer:
    """Enables the controller, sends an instruction, and collects what is reported."""

    def __init__(self) -> None:
        """Join the graph."""
        import rclpy
        from rclpy.node import Node
        from vla_msgs.msg import ControllerStatus
        from vla_msgs.msg import PolicyStatus
        rclpy.init()
        self._rclpy = rclpy
        self.node = Node('observer')
        self.latencies_ms: dict[int, float] = {}
        self.policy = PolicyStatus()
        self.controller = ControllerStatus()
        self.node.create_subscription(
            ControllerStatus, '/controller_node/status', self._on_controller, 100)
        self.node.create_subscription(
            PolicyStatus, '/policy_node/status', self._on_policy, 100)

    def _on_controller(self, status: object) -> None:
        self.controller = status
        if status.chunks_accepted:
            self.latencies_ms.setdefault(status.sequence, status.camera_to_command_ms)

    def _on_policy(self, status: object) -> None:
        self.policy = status

    def start(self) -> None:
        """Wait for the nodes; enable the controller and send an instruction."""
        from rclpy.action import ActionClient
        from std_srvs.srv import SetBool
        from vla_msgs.action import ExecuteInstruction
        from vla_msgs.msg import PolicyStatus
        self._until(lambda: self.policy.state == PolicyStatus.IDLE, 'an active policy node')
        enable = self.node.create_client(SetBool, '/controller_node/enable')
        self._until(enable.service_is_ready, 'a controller node')
        future = enable.call_async(SetBool.Request(data=True))
        self._until(future.done, 'an enabled controller')
        client = ActionClient(self.node, ExecuteInstruction, '/policy_node/execute_instruction')
        self._until(client.server_is_ready, 'the action server')
        future = client.send_goal_async(ExecuteInstruction.Goal(instruction='go'))
        self._until(future.done, 'an accepted instruction')

    def watch(self, camera: subprocess.Popen) -> None:
        """Collect until the camera's process ends and the last status has come."""
        while camera.poll() is None:
            self._rclpy.spin_once(self.node, timeout_sec=0.2)
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            self._rclpy.spin_once(self.node, timeout_sec=0.1)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + _START_S
        while not condition():
            self._rclpy.spin_once(self.node, timeout_sec=0.05)
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'expected {what} within {_START_S:g} s, found none')


def _measure(frames: int, rate_hz: float) -> dict[str, object]:
    """Run the whole way once and return the figures."""
    processes = _processes(frames, rate_hz)
    try:
        observer = Observer()
        observer.start()
        camera = processes[0]
        camera.stdin.write('go\n')
        camera.stdin.flush()
        observer.watch(camera)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(10)
    values = np.array(list(observer.latencies_ms.values()))
    quantiles = np.percentile(values, (50, 95, 99, 100))
    return {
        'image': '640x480 rgb8', 'rate_hz': rate_hz,
        'camera_to_command_ms': dict(zip(
            ('p50', 'p95', 'p99', 'max'), quantiles.round(2).tolist(), strict=True)),
        'measured': len(values),
        'frames_published': frames,
        'frames_received': observer.policy.frames_received,
        'frames_lost': frames - observer.policy.frames_received,
        'frames_superseded': observer.policy.frames_superseded,
        'chunks_published': observer.policy.chunks_published,
        'chunks_rejected': observer.controller.chunks_rejected,
        'processors': len(os.sched_getaffinity(0)),
        'load_average': os.getloadavg()[0],
    }


def _print(figures: dict[str, object]) -> bool:
    """Print the table; return whether every target is met."""
    from rich.console import Console
    from rich.table import Table
    table = Table(title='camera stamp to command, model time excluded')
    for title in ('figure', 'measured', 'target'):
        table.add_column(title)
    latency = figures['camera_to_command_ms']
    for name, value in latency.items():
        target = TARGETS_MS.get(name)
        table.add_row(f'{name} [ms]', f'{value:.2f}', f'<= {target:g}' if target else '')
    table.add_row('frames lost', str(figures['frames_lost']), '0')
    for name in ('frames_published', 'chunks_published', 'measured', 'processors'):
        table.add_row(name.replace('_', ' '), str(figures[name]), '')
    Console().print(table)
    print(json.dumps(figures))
    in_time = all(latency[name] <= limit for name, limit in TARGETS_MS.items())
    return in_time and figures['frames_lost'] == 0


def _parse() -> SimpleNamespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--frames', type=int, default=1000, help='camera frames (default 1000)')
    parser.add_argument('--rate', type=float, default=30.0, help='camera rate [Hz] (default 30)')
    parser.add_argument('--role', choices=('camera', 'policy'), help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    return options


def main() -> int:
    """Measure, or play one of the parts."""
    options = _parse()
    if options.role == 'camera':
        _camera(options.frames, options.rate)
        return 0
    if options.role == 'policy':
        return _policy()
    _set_environment()
    return 0 if _print(_measure(options.frames, options.rate)) else 1


if __name__ == '__main__':
    sys.exit(main())
