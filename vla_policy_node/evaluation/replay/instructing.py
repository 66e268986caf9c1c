"""The instruction of an episode, given to a policy node as a user would give it."""

from collections import Counter
from itertools import pairwise
import time

from vla_policy_node.evaluation.policy_client import GoalEnd
from vla_policy_node.evaluation.replay.live_figures import HeardChunk
from vla_policy_node.evaluation.replay.live_node import LiveNode
from vla_policy_node.recorded import RecordedEpisode

# The name of an ending that we asked for.
CANCELED = 'canceled'

_POLL_S = 0.01
# What the node may take to accept an instruction and to say how it ended.
_ANSWER_S = 30.0
# Longer than any episode; it is cancelled when that is over.
_LONGEST_S = 24 * 3600.0
# How long the answer to an episode's last frame is waited for, at least.
_LAST_ANSWER_S = 1.0
_LAST_CHUNKS_S = 2.0


class Instruction:
    """One goal of a policy node; it is accepted when this is made."""

    def __init__(self, node: LiveNode, episode: RecordedEpisode) -> None:
        """Send it."""
        self._node = node
        self._first_chunk = node.listener.n_chunks
        self._handle = node.client.send_instruction(
            episode.instruction, _LONGEST_S, _ANSWER_S)
        self._result = node.client.ask_result(self._handle)

    @property
    def has_ended(self) -> bool:
        """Whether the node has ended it."""
        return self._result.done()

    def goes_on(self) -> bool:
        """Return whether it is still carried out; raises when the node's process has died."""
        self._node.check()
        return not self.has_ended

    def chunks(self) -> list[HeardChunk]:
        """Return what was answered since it was sent."""
        return self._node.listener.chunks(self._first_chunk)

    def await_answer_to(self, stamp_ns: int, period_s: float) -> None:
        """Wait until the frame of that stamp is answered, as long as answers usually take."""
        chunks = self.chunks()
        usual_s = max((1e-3 * chunk.latency_ms for chunk in chunks), default=0.0)
        deadline_s = time.monotonic() + max(_LAST_ANSWER_S, 2.0 * (usual_s + period_s))
        while time.monotonic() < deadline_s and self.goes_on():
            if any(chunk.observation_ns >= stamp_ns for chunk in self.chunks()[-1:]):
                return
            time.sleep(_POLL_S)

    def end(self) -> GoalEnd:
        """End it unless the node has, and return how it ended, with all its answers heard."""
        if not self.has_ended:
            self._node.client.cancel(self._handle)
        end = self._node.client.result(self._result, _ANSWER_S)
        deadline_s = time.monotonic() + _LAST_CHUNKS_S
        while len(self.chunks()) < end.steps and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return end


class Instructions:
    """The instructions of one replay; answers: what was answered to each."""

    def __init__(self, node: LiveNode, period_s: float) -> None:
        """Prepare; period_s: of the policy's actions."""
        self.ended_by_node: Counter[str] = Counter()
        self._node = node
        self._period_s = period_s
        self._starts: list[int] = []
        self._current: Instruction | None = None

    @property
    def current(self) -> Instruction | None:
        """The one that is carried out."""
        return self._current

    def begin(self, episode: RecordedEpisode) -> Instruction:
        """Give the instruction of an episode."""
        self._starts.append(self._node.listener.n_chunks)
        self._current = Instruction(self._node, episode)
        return self._current

    def end(self, newest_ns: int | None = None) -> str:
        """
        End the current one, and return the name of its ending.

        newest_ns: stamp of the last frame, whose answer is waited for; None does not wait.
        """
        if newest_ns is not None:
            self._current.await_answer_to(newest_ns, self._period_s)
        end, self._current = self._current.end(), None
        if end.ending != CANCELED:
            self.ended_by_node[f'{end.ending}: {end.message}' if end.message else end.ending] += 1
        return end.ending

    def answers(self) -> list[list[HeardChunk]]:
        """Return what was answered to each instruction so far."""
        chunks = self._node.listener.chunks()
        return [chunks[start:stop] for start, stop in pairwise([*self._starts, len(chunks)])]
