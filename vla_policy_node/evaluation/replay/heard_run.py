"""What was heard of a policy node, beside what was recorded: the run that a report is made of."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from vla_policy_node.evaluation.replay.job import ReplayError
from vla_policy_node.evaluation.replay.live_figures import HeardChunk
from vla_policy_node.evaluation.replay.live_figures import HeardStatus
from vla_policy_node.evaluation.replay.live_figures import live_figures
from vla_policy_node.evaluation.replay.live_figures import Playback
from vla_policy_node.evaluation.replay.live_figures import timings
from vla_policy_node.evaluation.replay.rows import ActionConventions
from vla_policy_node.evaluation.replay.rows import replayed_rows
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.recorded import RecordedEpisode

_NO_DECODING = 'the model gave no valid action, see the log of the policy node'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heard:
    """
    What a node said.

    answers: to each instruction. frames: stamp [ns] of a frame as the node heard it -> episode and
    step, None for what is no step, in the order they were played. statuses: from before the first
    frame to after the last.
    """

    answers: Sequence[Sequence[HeardChunk]]
    frames: Mapping[int, tuple[RecordedEpisode, int | None]]
    statuses: Sequence[HeardStatus]


def run_of(
    heard: Heard, policy: ActionConventions, name: str, playback: Playback, **times_s: float,
) -> ReplayRun:
    """
    Return a row for every answer to a frame with a recorded action.

    name: of the policy, for tables. times_s: wall_s, reading_s, waited_s of the run. An answer
    belongs to the frame of its observation stamp. Raises ReplayError where there is no row.
    """
    chunks = [chunk for episode in heard.answers for chunk in episode]
    times = timings(chunks, heard.statuses)
    rows = [(heard.frames[chunk.observation_ns], replace(chunk.answer, timing_ms=parts))
            for chunk, parts in zip(chunks, times, strict=True)
            if heard.frames.get(chunk.observation_ns, (None, None))[1] is not None]
    if not rows:
        raise _nothing(heard, chunks, playback)
    frames, answers = zip(*rows, strict=True)
    last_frames = {episode.number: stamp for stamp, (episode, _) in heard.frames.items()}
    live = live_figures(heard.answers, heard.statuses, times, playback,
                        frozenset(last_frames.values()))
    live['chunks_without_recorded_action'] = len(chunks) - len(rows)
    replayed = replayed_rows(
        policy, name, frames, answers, live=live,
        latency_ms=[answer.timing_ms.get('total', float('nan')) for answer in answers])
    failed = live['decode_failures']
    return ReplayRun(
        replayed=replayed, frames=frames, answers=answers, **times_s,
        failures=Counter({_NO_DECODING: failed} if failed else {}))


def _nothing(heard: Heard, chunks: Sequence[HeardChunk], playback: Playback) -> ReplayError:
    said = f'; the policy node said last: {heard.statuses[-1].text}' if heard.statuses else ''
    if not chunks and playback.ended_early:
        return ReplayError(f'nothing was answered: {playback.ended_early}{said}')
    return ReplayError(
        'expected answers of the policy node to frames with a recorded action, found '
        f'{len(chunks)} to others{said}')
