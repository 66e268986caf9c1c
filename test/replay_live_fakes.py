"""
Live replay without a model: a policy node that acts by brightness, bags for it, and a player.

Run as a program it is that node, or the player, in a process of its own. MODE says what is
special about the node: '' nothing, 'refuse' to load, 'crash' from brightness CRASHES on, 'done'
after its third answer, 'slow'.
"""

import json
import os
from pathlib import Path
import sys
import time

import bag_folders as bags
import numpy as np
from replay_fakes import BrightnessPolicy

from vla_policy_node.bringup import NodeProcess
from vla_policy_node.evaluation.replay.checkpoint_actions import CheckpointActions
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import Observation

MODE = 'REPLAY_TEST_MODE'
CRASHES = 20
FRAME_S = 0.05
CONFIG = {
    'cameras': {'primary': bags.CAMERA}, 'actions': {'kind': 'chunk', 'frame': 'base'},
    'instruction': {'topic': bags.WORDS}, 'frames': {'select': 'chunks', 'every': 3}}


class NodePolicy(BrightnessPolicy):
    """What the node runs."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode
        self._answers = 0

    def action_logits(self, observation: Observation) -> np.ndarray:
        """Return something that the image decides, for the self-test."""
        return np.array([1.0, observation.images['primary'].mean()], np.float32)

    def infer(self, observation: Observation) -> ActionChunk:
        """Return what BrightnessPolicy does, and what the mode says."""
        picture = observation.images['primary']
        # The self-test's pictures are larger than those of the bags.
        is_recorded = picture.shape[0] == 4
        if self._mode == 'crash' and is_recorded and picture[0, 0, 0] >= CRASHES:
            os._exit(3)
        time.sleep(0.5 if self._mode == 'slow' else 0.01)
        chunk = super().infer(observation)
        self._answers += is_recorded
        if self._mode == 'done' and self._answers == 3:
            return ActionChunk(**{name: getattr(chunk, name) for name in chunk.__slots__
                                  if name != 'terminate'}, terminate=True)
        return chunk


def actions(checkpoint: str = 'brightness', unnorm_key: str | None = None) -> CheckpointActions:
    """Return what the answers mean, as read_actions does of a checkpoint."""
    policy = BrightnessPolicy()
    return CheckpointActions(
        action_space=policy.action_space, action_tokenizer=policy.action_tokenizer,
        camera_names=policy.camera_names, checkpoint_name=checkpoint)


def node_command(process: NodeProcess) -> list[str]:
    """Return the command line of the node in this file."""
    return [sys.executable, __file__, 'node', *process.ros_arguments()]


def messages(frames: int, first: int = 0, at_s: float = 0.0, text: str = 'push') -> list:
    """Return an episode: words, frames of brightness `first`, `first` + 1 ..., and chunks."""
    said = [bags.words(at_s - 0.01, text)]
    for number in range(frames):
        now_s, level = at_s + FRAME_S * number, first + number
        said.append(bags.image(now_s + 0.004, level, stamp_s=now_s))
        if number % 4 == 0:
            said.append(bags.chunk(now_s + 0.02, [[1e-3 * level, 0, 0, 0, 0, 0, 1.0]],
                                   observed_s=now_s))
    return said


def write_bag(path: Path, *episodes: list) -> Path:
    """Write a bag of episodes."""
    return bags.write(path, [message for episode in episodes for message in episode])


def player_command(bag: Path, **options: float) -> list[str]:
    """
    Return the command line of the player in this file, which does as `ros2 bag play --clock` does.

    clock_hz: 0 for no /clock. rate. stop_s: ends so long after the start. pause_s: stands still
    for so long in the middle. answers: publishes a false answer to every picture too.
    """
    return [sys.executable, __file__, 'player', str(bag), json.dumps(options)]


def _play(bag: Path, *, clock_hz: float = 40.0, rate: float = 1.0, stop_s: float = 1e9,
          pause_s: float = 0.0, answers: bool = False) -> None:
    """Publish a bag's pictures with their own stamps, on their own topic, and the time."""
    import rclpy
    from rclpy.node import Node
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image
    from vla_msgs.msg import EndEffectorDelta
    from vla_msgs.msg import EndEffectorDeltaChunk

    from vla_policy_node.nodes.conversions import time_message
    from vla_policy_node.recordings import Recording
    from vla_policy_node.recordings import stamp_of

    rclpy.init()
    node = Node('player')
    pictures = node.create_publisher(Image, bags.CAMERA, 10)
    clock = node.create_publisher(Clock, '/clock', 10) if clock_hz else None
    chunks = node.create_publisher(
        EndEffectorDeltaChunk, bags.CHUNKS, 10) if answers else None
    # The node under test and whoever evaluates it.
    while pictures.get_subscription_count() < 2:
        time.sleep(0.02)
    recorded = list(Recording(bag).raw(bags.CAMERA))
    start_ns, now_s = recorded[0].received_ns, 0.0
    while recorded and now_s < stop_s:
        now_ns = start_ns + round(1e9 * now_s)
        if clock is not None:
            clock.publish(Clock(clock=time_message(now_ns)))
        while recorded and recorded[0].received_ns <= now_ns:
            pictures.publish(bytes(recorded[0].data))
            if chunks is not None:
                chunks.publish(EndEffectorDeltaChunk(
                    observation_stamp=time_message(stamp_of(recorded[0].data)),
                    deltas=[EndEffectorDelta()]))
            recorded.pop(0)
        step_s = 1.0 / (clock_hz or 40.0)
        time.sleep(step_s + pause_s * (now_s < 0.8 <= now_s + step_s * rate))
        now_s += step_s * rate
    node.destroy_node()
    rclpy.shutdown()


def _node() -> None:
    from vla_policy_node.nodes.policy_node import PolicyNode
    from vla_policy_node.nodes.runtime import run

    mode = os.environ.get(MODE, '')

    def load(values: object) -> NodePolicy:
        if mode == 'refuse':
            raise ValueError(f'{values.checkpoint} has no weights')
        return NodePolicy(mode)
    sys.exit(run(lambda: PolicyNode(load)))


if __name__ == '__main__':
    if sys.argv[1] == 'player':
        _play(Path(sys.argv[2]), **json.loads(sys.argv[3]))
    else:
        _node()
