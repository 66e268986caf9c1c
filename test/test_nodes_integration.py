"""Simulator and controller as processes of their own, a policy node in this one, real DDS."""

from collections.abc import Iterator
import itertools
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_policy_node.simulation')

from geometry_msgs.msg import PoseStamped  # noqa: E402
from nodes_bench import delta_chunk  # noqa: E402
from nodes_bench import FakePolicy  # noqa: E402
from nodes_bench import Graph  # noqa: E402
from nodes_bench import overrides  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from vla_msgs.msg import EndEffectorDeltaChunk  # noqa: E402
from vla_msgs.srv import JudgeTask  # noqa: E402
from vla_msgs.srv import ResetScene  # noqa: E402

from vla_policy_node.bringup import node_process  # noqa: E402
from vla_policy_node.bringup import REMAPPINGS  # noqa: E402
from vla_policy_node.nodes.policy_node import PolicyNode  # noqa: E402

pytestmark = pytest.mark.integration

# Only a failing test waits so long; a process that starts on a busy machine takes its time.
START_S = 60.0
END_S = 30.0
TIMEOUT_S = 2.0


def start(name: str, **parameters) -> subprocess.Popen:
    return subprocess.Popen(
        node_process(name, **parameters).command(), stderr=subprocess.PIPE, text=True)


def interrupt(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run_module(module: str, *arguments: str):
    return subprocess.run(
        [sys.executable, '-m', f'vla_policy_node.nodes.{module}', *arguments],
        capture_output=True, text=True, timeout=START_S)


@pytest.fixture(scope='module')
def robot() -> Iterator[tuple[subprocess.Popen, subprocess.Popen]]:
    """Run the simulated robot and the controller as the demo does."""
    processes = (
        start('simulated_robot'),
        # A busy machine's frames are old: what counts as stale is tested elsewhere.
        start('controller_node', dry_run=False, output_mode='twist', pose_source='topic',
              command_timeout_s=TIMEOUT_S))
    yield processes
    codes = [interrupt(process) for process in reversed(processes)]
    assert codes == [0, 0], [process.stderr.read() for process in processes]


@pytest.fixture(scope='module')
def joined(robot) -> Iterator[Graph]:
    """Join the graph once: discovery takes up to three seconds, on a busy machine more."""
    with running_graph() as graph:
        graph.poses = graph.collect(PoseStamped, '/simulated_robot/tool_pose')
        wait_until(lambda: graph.poses, START_S)
        yield graph


@pytest.fixture
def graph(joined) -> Graph:
    """Start every test from the same scene."""
    reset = ResetScene.Request(seed=4, task='pick red')
    assert joined.call(ResetScene, '/simulated_robot/reset', reset).success
    joined.poses.clear()
    wait_until(lambda: joined.poses)
    return joined


def enable(graph: Graph, value: bool = True) -> None:
    assert graph.call(SetBool, '/controller_node/enable', SetBool.Request(data=value)).success


def test_the_simulated_robot_looks_like_a_robot(graph):
    images = graph.collect(Image, '/camera/image_raw', qos_profile_sensor_data)
    joints = graph.collect(JointState, '/joint_states')
    wait_until(lambda: len(images) > 5 and joints)
    image = images[-1]
    assert (image.height, image.width, image.encoding) == (480, 640, 'rgb8')
    assert image.header.frame_id == 'camera_optical_frame'
    assert len(joints[-1].name) == 9
    stamps = [i.header.stamp.sec + i.header.stamp.nanosec * 1e-9 for i in images]
    assert stamps == sorted(set(stamps))
    assert abs(time.time() - stamps[-1]) < 10.0


def test_the_same_seed_gives_the_same_scene_and_an_unknown_task_is_refused(graph):
    name = '/simulated_robot/reset'
    first = graph.call(ResetScene, name, ResetScene.Request(seed=11))
    second = graph.call(ResetScene, name, ResetScene.Request(seed=11))
    assert first.success and first.task == second.task
    refused = graph.call(ResetScene, name, ResetScene.Request(seed=1, task='eat red'))
    assert not refused.success and 'expected one of' in refused.message


def test_the_controller_shares_no_memory_and_stays_on_this_machine(robot, graph):
    controller = psutil.Process(robot[1].pid)
    shared = [area.path for area in controller.memory_maps()
              if area.path.startswith('/dev/shm/fastrtps')]
    addresses = {connection.laddr.ip for connection in controller.net_connections('udp')}
    assert (shared, addresses) == ([], {'127.0.0.1'})


def test_chunks_of_another_process_move_the_simulated_arm(graph):
    publisher = graph.node.create_publisher(
        EndEffectorDeltaChunk, '/policy_node/action_chunk', 1)
    wait_until(lambda: publisher.get_subscription_count() == 1)
    enable(graph)
    before, started_s = graph.poses[-1].pose.position.y, time.monotonic()
    sequences = itertools.count(1)

    def moved() -> float:
        return graph.poses[-1].pose.position.y - before

    def far_enough() -> bool:
        chunk = delta_chunk(graph.node, next(sequences), x_m=0.0)
        chunk.deltas[0].translation.y = 0.02
        publisher.publish(chunk)
        time.sleep(0.1)
        return moved() > 0.03

    wait_until(far_enough)
    # 2 cm in 0.2 s, and the arm may swing a little.
    assert moved() < 0.1 * (time.monotonic() - started_s) + 0.01
    enable(graph, False)
    graph.node.destroy_publisher(publisher)
    verdict = graph.call(JudgeTask, '/simulated_robot/judge', JudgeTask.Request())
    assert not verdict.succeeded and verdict.elapsed_s > 0.2


def test_an_instruction_from_the_command_line_moves_the_arm_until_done(graph):
    rules = [part for source, target in REMAPPINGS['policy_node']
             for part in ('-r', f'{source}:={target}')]
    policy = FakePolicy(script=(False,) * 10 + (True,))
    node = graph.add(PolicyNode(
        lambda _: policy, cli_args=['--ros-args', *rules],
        parameter_overrides=overrides(autostart=True, image_timeout_s=TIMEOUT_S)))
    wait_until(lambda: node._active, START_S)
    before = graph.poses[-1].pose.position.x
    outcome = run_module('instruct', 'touch the red block', '--enable', '--wait', f'{END_S}')
    assert outcome.returncode == 0, outcome.stderr
    assert 'done after 11 chunks' in outcome.stdout
    assert re.search('/controller_node: [1-9][0-9]* chunks followed', outcome.stdout)
    wait_until(lambda: graph.poses[-1].pose.position.x > before + 0.01)
    outcome = run_module('instruct', 'touch it again', '--max-duration', '1', '--wait', f'{END_S}')
    assert re.search('0 chunks followed, .* rejected, the last one: .* disabled', outcome.stdout)
    answer = run_module('ask', 'what is it?', '--wait', f'{END_S}')
    assert answer.returncode == 0 and answer.stdout.startswith('what is it? ')


def test_a_node_that_runs_already_is_not_started_again(graph):
    second = run_module('controller_node')
    assert second.returncode == 1
    assert 'node started twice: /controller_node runs already' in second.stderr


@pytest.mark.parametrize('module', ['policy_node', 'controller_node', 'simulator_node'])
def test_an_unknown_parameter_ends_the_process_with_one_line(module):
    outcome = run_module(
        module, '--ros-args', '-r', '__node:=mistyped', '-p', 'command_timout_s:=0.5')
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: parameter 'command_timout_s' is unknown")
    assert outcome.stderr.count('\n') == 1


def test_autostart_without_a_checkpoint_ends_the_process_with_its_reason():
    outcome = run_module(
        'policy_node', '--ros-args', '-r', '__node:=lonely', '-p', 'autostart:=true')
    assert outcome.returncode == 1
    last = outcome.stderr.strip().splitlines()[-1]
    assert last.startswith('error: parameter checkpoint: expected a checkpoint directory')


def test_a_simulator_without_opengl_ends_with_one_line():
    outcome = subprocess.run(
        [sys.executable, '-m', 'vla_policy_node.nodes.simulator_node'], capture_output=True,
        text=True, timeout=START_S, env={**os.environ, 'MUJOCO_GL': 'disable'})
    assert outcome.returncode == 1
    assert outcome.stderr.startswith('error: no OpenGL')
    assert outcome.stderr.count('\n') == 1


@pytest.mark.parametrize('module', ['instruct', 'ask'])
def test_a_command_without_a_server_says_so(module):
    outcome = run_module(module, 'what is it?', '--policy', '/nobody', '--wait', '0.3')
    assert outcome.returncode == 1
    assert 'nobody offers' in outcome.stderr and '/nobody/' in outcome.stderr


def test_a_process_without_a_model_does_not_import_torch():
    modules = ', '.join(f'vla_policy_node.nodes.{name}' for name in (
        'controller_node', 'simulator_node', 'instruct', 'ask', 'policy_node'))
    code = f'import sys, {modules}; print("torch" in sys.modules)'
    outcome = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert outcome.stdout.strip() == 'False', outcome.stderr
