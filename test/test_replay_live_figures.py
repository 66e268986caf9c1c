"""Figures of live replay are those of the node: times by its stamps, counts by its counters."""

from collections.abc import Sequence

import numpy as np
import pytest
from replay_live_fakes import actions
from replay_live_fakes import CONFIG
from replay_live_fakes import messages
from replay_live_fakes import write_bag

from vla_policy_node.evaluation.replay.heard_run import Heard
from vla_policy_node.evaluation.replay.heard_run import run_of
from vla_policy_node.evaluation.replay.job import ReplayError
from vla_policy_node.evaluation.replay.live_figures import HeardChunk
from vla_policy_node.evaluation.replay.live_figures import HeardStatus
from vla_policy_node.evaluation.replay.live_figures import live_figures
from vla_policy_node.evaluation.replay.live_figures import Playback
from vla_policy_node.evaluation.replay.live_figures import RECORDING_CLOCK
from vla_policy_node.evaluation.replay.live_figures import timings
from vla_policy_node.evaluation.replay.live_figures import WALL_CLOCK
from vla_policy_node.policy import ActionChunk
from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedConfig

MS = 1_000_000
NOTHING = ActionChunk(actions=np.zeros((1, 7)), token_ids=np.full(7, 1127),
                      all_token_ids=np.full(7, 1127), confidence=np.full((1, 7), 0.5, np.float32))
WALL = Playback(clock=WALL_CLOCK, rate=1.0, frames_published=10)


def chunk(sequence: int, observed_ms: int, latency_ms: int, received_s: float = 0.0) -> HeardChunk:
    return HeardChunk(sequence=sequence, observation_ns=observed_ms * MS, received_s=received_s,
                      published_ns=(observed_ms + latency_ms) * MS, answer=NOTHING)


def status(
    count: int, latency_ms: int = 0, total_ms: float = 0.0, *, received_s: float = 0.0,
    is_stale: bool = False, **counters: int,
) -> HeardStatus:
    names = ('frames_received', 'frames_superseded', 'frames_rejected', 'decode_failures')
    return HeardStatus(
        text='waiting', is_stale=is_stale, latency_ms=latency_ms * MS * 1e-6,
        timing_ms={'total': total_ms}, received_s=received_s,
        counters={**dict.fromkeys(names, 0), 'chunks_published': count, **counters})


def figures(
    chunks: Sequence[Sequence[HeardChunk]] = (), statuses: Sequence[HeardStatus] = (),
    playback: Playback = WALL, **options,
) -> dict:
    flat = [each for episode in chunks for each in episode]
    return live_figures(chunks, statuses, timings(flat, statuses), playback, **options)


def test_the_times_of_an_inference_are_those_of_the_status_behind_its_chunk() -> None:
    found = timings([chunk(1, 0, 50), chunk(2, 200, 60), chunk(3, 400, 70)],
                    [status(0), status(1, 50, 40.0), status(1, 50, 41.0), status(3, 70, 60.0)])
    assert found == [{'total': 41.0}, {}, {'total': 60.0}]


def test_a_node_that_was_configured_anew_counts_from_zero_while_sequences_go_on() -> None:
    chunks = [chunk(number + 30, 200 * number, 50 + number % 2) for number in range(6)]
    statuses = [status(number, 50 + number % 2, float(number)) for number in range(6)]
    assert timings(chunks, statuses) == [{'total': float(number)} for number in range(6)]


def test_a_status_that_belongs_to_another_chunk_tells_nothing() -> None:
    # Both sent while the next chunk was on its way: count or latency are of the one before.
    assert timings([chunk(1, 0, 50), chunk(2, 200, 60)],
                   [status(1, 50, 40.0), status(2, 50, 40.0)]) == [{'total': 40.0}, {}]


def test_thousands_of_equal_latencies_are_told_apart_by_their_count() -> None:
    chunks = [chunk(number, 200 * number, 50) for number in range(1, 5001)]
    statuses = [status(number, 50, float(number)) for number in range(1, 5001)]
    assert [times['total'] for times in timings(chunks, statuses)] == list(range(1, 5001))


def test_latency_and_age_are_of_the_nodes_clock() -> None:
    found = figures([[chunk(1, 0, 50), chunk(2, 200, 60), chunk(3, 500, 40)]],
                    [status(1, 50, 30.0), status(2, 60, 45.0), status(3, 40, 40.0)])
    assert found['clock'] == 'wall'
    assert found['stamp_to_chunk_ms'].tolist() == pytest.approx([50, 60, 40])
    assert found['frame_age_ms'].tolist() == pytest.approx([20, 15, 0])
    # The first action is in force until the second comes, 260 ms behind the first's frame.
    assert found['action_age_ms'].tolist() == pytest.approx([260, 340])


def test_on_the_recordings_clock_an_inference_takes_as_much_as_is_played_meanwhile() -> None:
    played = Playback(clock=RECORDING_CLOCK, rate=2.0, frames_published=10)
    found = figures([[chunk(1, 0, 90)]], [status(1, 90, 40.0)], played)
    assert (found['clock'], found['playback_rate']) == ('recording', 2.0)
    assert found['frame_age_ms'].tolist() == pytest.approx([10.0])


def test_the_rate_of_another_player_is_measured() -> None:
    followed = Playback(clock=RECORDING_CLOCK, rate=None, frames_published=10)
    chunks = [[chunk(1, 0, 90, 10.0), chunk(2, 500, 90, 11.0)], [chunk(3, 9000, 90, 30.0)]]
    found = figures(chunks, [status(2, 90, 40.0)], followed)
    assert found['playback_rate'] == pytest.approx(0.5)
    assert found['frame_age_ms'].tolist() == pytest.approx([70.0])
    assert found['rate_hz'] == pytest.approx(1.0)


def test_pauses_between_episodes_are_no_part_of_rate_and_age() -> None:
    first = [chunk(1, 0, 50, 1.0), chunk(2, 200, 50, 1.2), chunk(3, 400, 50, 1.4)]
    second = [chunk(4, 9000, 50, 10.0), chunk(5, 9200, 50, 10.2)]
    found = figures([first, second, []])
    assert found['rate_hz'] == pytest.approx(5.0)
    assert found['action_age_ms'].tolist() == pytest.approx([250, 250, 250])


def test_an_answer_to_the_last_frame_is_left_out_of_the_times() -> None:
    found = figures([[chunk(1, 0, 50), chunk(2, 200, 190)]], [status(2, 190, 20.0)],
                    last_frames={200 * MS})
    assert found['stamp_to_chunk_ms'].tolist() == pytest.approx([50])
    assert found['frame_age_ms'].tolist() == found['action_age_ms'].tolist() == []
    assert found['chunks'] == 2


def test_frames_are_counted_from_before_the_first_to_behind_the_last() -> None:
    found = figures(statuses=[
        status(7, frames_received=100, decode_failures=4),
        status(9, frames_received=104, frames_superseded=2, decode_failures=4),
        status(9, frames_received=108, frames_superseded=5, frames_rejected=1, decode_failures=6)])
    assert {name: found[name] for name in found if name.startswith('frames_')} == {
        'frames_published': 10, 'frames_received': 8, 'frames_dropped': 2, 'frames_superseded': 5,
        'frames_rejected': 1}
    assert found['decode_failures'] == 2


def test_where_the_node_hears_more_than_was_counted_its_counts_are_interpolated() -> None:
    followed = Playback(clock=RECORDING_CLOCK, rate=None, frames_published=20, span_s=(1.5, 2.5))
    found = figures(statuses=[status(0, received_s=float(now), frames_received=30 * now)
                              for now in range(5)], playback=followed)
    assert (found['frames_received'], found['frames_dropped']) == (30, 0)


def test_a_spell_of_stale_frames_counts_once_however_often_it_is_told() -> None:
    told = [False, True, True, False, True, False]
    assert figures(statuses=[status(0, is_stale=each) for each in told])['stale_spells'] == 2


def test_without_anything_heard_there_are_no_figures() -> None:
    found = figures([], [], Playback(clock=WALL_CLOCK, rate=1.0, frames_published=None,
                                     ended_early='interrupted'))
    assert (found['ended_early'], found['rate_hz']) == ('interrupted', None)
    assert (found['frames_published'], found['frames_dropped'], found['chunks']) == (None, None, 0)


@pytest.fixture
def episode(tmp_path):
    config = RecordedConfig.model_validate({**CONFIG, 'frames': {}})
    return read_bags([write_bag(tmp_path / 'bag', messages(7))], config,
                     period_s=0.2).episodes[0]


def heard(episode, *chunks: HeardChunk, statuses=()) -> Heard:
    frames = {1000 * MS + step: (episode, step) for step in range(7)}
    return Heard(answers=[chunks], frames={**frames, 999 * MS: (episode, None)},
                 statuses=statuses)


def test_an_answer_stands_beside_the_frame_of_its_observation_stamp(episode) -> None:
    chunks = [chunk(1, 1000, 50), HeardChunk(
        sequence=2, observation_ns=1000 * MS + 4, published_ns=1300 * MS, received_s=0.0,
        answer=NOTHING)]
    run = run_of(heard(episode, *chunks, statuses=[status(1, 50, 40.0)]), actions(), 'x', WALL,
                 wall_s=2.0, reading_s=0.5, waited_s=0.1)
    assert [step for _, step in run.frames] == [0, 4]
    assert run.replayed.stamp_ns.tolist() == episode.stamp_ns[[0, 4]].tolist()
    assert run.replayed.recorded[:, 0, 0].tolist() == pytest.approx([0.0, 0.004])
    assert run.replayed.predicted_bins[:, 0].tolist() == [[127] * 7] * 2
    assert run.replayed.latency_ms.tolist() == pytest.approx([40.0, np.nan], nan_ok=True)
    assert run.replayed.timing_ms['total'].tolist() == pytest.approx([40.0, np.nan], nan_ok=True)
    assert (run.wall_s, run.reading_s, run.waited_s) == (2.0, 0.5, 0.1)


def test_answers_to_frames_without_a_recorded_action_are_counted(episode) -> None:
    strange = [chunk(1, 999, 50), chunk(2, 1000, 50), chunk(3, 5000, 50)]
    run = run_of(heard(episode, *strange), actions(), 'x', WALL, wall_s=1, reading_s=0, waited_s=0)
    assert len(run.frames) == 1
    assert run.replayed.live['chunks_without_recorded_action'] == 2
    assert run.replayed.live['chunks'] == 3


def test_failed_decodings_are_told(episode) -> None:
    said = [status(0), status(1, decode_failures=3)]
    run = run_of(heard(episode, chunk(1, 1000, 50), statuses=said), actions(), 'x', WALL,
                 wall_s=1, reading_s=0, waited_s=0)
    assert list(run.failures.values()) == [3]


def test_no_answer_at_all_is_an_error_with_what_the_node_said_last(episode) -> None:
    cut_short = Playback(clock=WALL_CLOCK, rate=1.0, frames_published=3, ended_early='it died')
    with pytest.raises(ReplayError, match='nothing was answered: it died; .* said last: waiting'):
        run_of(heard(episode, statuses=[status(0)]), actions(), 'x', cut_short,
               wall_s=1, reading_s=0, waited_s=0)


def test_answers_to_strange_frames_alone_are_an_error(episode) -> None:
    with pytest.raises(ReplayError, match='found 1 to others; .* said last: waiting'):
        run_of(heard(episode, chunk(1, 5000, 50), statuses=[status(0)]), actions(), 'x', WALL,
               wall_s=1, reading_s=0, waited_s=0)
