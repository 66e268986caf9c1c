"""From a policy's chunk to the message that the controller gets."""

import numpy as np
from vla_msgs.msg import EndEffectorDelta
from vla_msgs.msg import EndEffectorDeltaChunk

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.nodes.conversions import duration_message
from vla_policy_node.nodes.conversions import time_message
from vla_policy_node.nodes.conversions import vector
from vla_policy_node.policy.types import ActionChunk


def chunk_message(
    chunk: ActionChunk, space: ActionSpace, *, sequence: int, observation_ns: int, now_ns: int,
) -> EndEffectorDeltaChunk:
    """
    Return the message of a policy's chunk.

    :param observation_ns: stamp of the camera frame it was computed from [ns].
    :param now_ns: when it is published [ns], same clock.
    """
    message = EndEffectorDeltaChunk(
        observation_stamp=time_message(observation_ns), sequence=sequence,
        period=duration_message(space.period_s), plan=chunk.plan)
    message.header.stamp = time_message(now_ns)
    message.header.frame_id = space.frame
    message.deltas = [
        _delta_message(action, confidence, chunk.terminate)
        for action, confidence in zip(chunk.actions, chunk.confidence, strict=True)]
    message.token_ids = [int(token) for token in np.ravel(chunk.all_token_ids)]
    return message


def _delta_message(
    action: np.ndarray, confidence: np.ndarray, terminate: bool,
) -> EndEffectorDelta:
    return EndEffectorDelta(
        translation=vector(action[:3]), rotation=vector(action[3:6]), gripper=float(action[6]),
        terminate=bool(terminate), confidence=np.asarray(confidence, np.float32))
