"""
The MCAP with predicted and recorded chunks, to be opened beside the recording.

Log times are those at which the recording received the frames, stamps those of the frames.
"""

from collections.abc import Iterator
from pathlib import Path
import tempfile
from typing import Any

import numpy as np
from rosbags.typesys.store import Typestore

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.evaluation import recording
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.message_types import typestore
from vla_policy_node.policy import ActionChunk
from vla_policy_node.recordings import CHUNK_TYPE

PREDICTED = '/replay/predicted'
RECORDED = '/replay/recorded'
AGAINST = '/replay/against'

_SECOND = 1_000_000_000


def write_predictions(
    path: Path, run: ReplayRun, *, frame: str, period_s: float, against: ReplayRun | None = None,
) -> int:
    """
    Write an .mcap file at `path` and return how many messages it has.

    frame: that the deltas are expressed in. period_s: of one delta. A frame whose decoding failed
    has no prediction, one without a recorded action no recording.
    """
    store = typestore()
    build = _Builder(store, frame, period_s)
    runs = {PREDICTED: run, **({AGAINST: against} if against else {})}
    messages = [*build.recorded(run)]
    for topic, each in runs.items():
        messages += build.predicted(topic, each)
    topics = dict.fromkeys((*runs, RECORDED), CHUNK_TYPE)
    with tempfile.TemporaryDirectory(prefix='.bag-', dir=path.parent) as folder:
        bag = Path(folder) / path.stem
        count = recording.write_bag(bag, topics, messages)
        next(bag.glob('*.mcap')).replace(path)
    return count


class _Builder:
    """Makes serialised chunk messages."""

    def __init__(self, store: Typestore, frame: str, period_s: float) -> None:
        self._store = store
        self._frame = frame
        self._period_ns = round(period_s * _SECOND)

    def predicted(self, topic: str, run: ReplayRun) -> Iterator[recording.Recorded]:
        """Yield what a policy answered."""
        for row, (answer, received_ns) in enumerate(
                zip(run.answers, run.received_ns.tolist(), strict=True)):
            if answer is not None:
                yield recording.Recorded(topic=topic, received_ns=received_ns, data=self._chunk(
                    row, int(run.replayed.stamp_ns[row]), answer))

    def recorded(self, run: ReplayRun) -> Iterator[recording.Recorded]:
        """Yield what was done, as far as it is known."""
        for row, (actions, received_ns) in enumerate(
                zip(run.replayed.recorded, run.received_ns.tolist(), strict=True)):
            known = np.isfinite(actions).all(axis=1)
            steps = len(actions) if known.all() else int(np.argmin(known))
            if steps:
                # What was done is certain, and no model wrote it.
                done = ActionChunk(
                    actions=actions[:steps], token_ids=np.zeros((0, ACTION_DIM), np.int64),
                    all_token_ids=np.zeros(0, np.int64), timing_ms={},
                    confidence=np.ones((steps, ACTION_DIM), np.float32))
                yield recording.Recorded(
                    topic=RECORDED, received_ns=received_ns,
                    data=self._chunk(row, int(run.replayed.stamp_ns[row]), done))

    def _chunk(self, sequence: int, stamp_ns: int, chunk: ActionChunk) -> bytes:
        stamp = self._type('builtin_interfaces/msg/Time')(*divmod(stamp_ns, _SECOND))
        message = self._type(CHUNK_TYPE)(
            header=self._type('std_msgs/msg/Header')(stamp=stamp, frame_id=self._frame),
            observation_stamp=stamp, sequence=sequence, plan=chunk.plan,
            period=self._type('builtin_interfaces/msg/Duration')(
                *divmod(self._period_ns, _SECOND)),
            deltas=[self._delta(action, confidence, chunk.terminate) for action, confidence in
                    zip(chunk.actions, chunk.confidence, strict=True)],
            token_ids=np.asarray(chunk.all_token_ids, np.int64))
        return bytes(self._store.serialize_cdr(message, CHUNK_TYPE))

    def _delta(self, action: np.ndarray, confidence: np.ndarray, terminate: bool) -> Any:
        vector = self._type('geometry_msgs/msg/Vector3')
        x, y, z, rx, ry, rz, gripper = action.tolist()
        return self._type('vla_msgs/msg/EndEffectorDelta')(
            translation=vector(x, y, z), rotation=vector(rx, ry, rz), gripper=gripper,
            terminate=terminate, confidence=np.asarray(confidence, np.float32))

    def _type(self, name: str) -> Any:
        return self._store.types[name]
