"""Counting and timing of a live run from the messages of the nodes."""

from types import SimpleNamespace

import pytest

from vla_policy_node.evaluation.telemetry import Telemetry

UNCONFIGURED, IDLE = 0, 2


def _policy(frames=0, superseded=0, chunks=0, total_ms=0.0, state=IDLE):
    return SimpleNamespace(
        UNCONFIGURED=UNCONFIGURED, state=state,
        frames_received=frames, frames_superseded=superseded, frames_rejected=0,
        chunks_published=chunks, decode_failures=0, preprocess_ms=1.0, vision_ms=2.0,
        prefill_ms=3.0, decode_ms=4.0, total_ms=total_ms)


def _controller(sequence, latency_ms, accepted=1):
    return SimpleNamespace(
        sequence=sequence, camera_to_command_ms=latency_ms, chunks_accepted=accepted,
        chunks_rejected=0, last_rejection='', commands_sent=9, commands_clamped=2)


def test_each_chunk_counts_once_in_the_latency():
    telemetry = Telemetry()
    for sequence, latency_ms in ((1, 80.0), (1, 80.0), (2, 90.0), (2, 95.0)):
        telemetry.on_controller_status(_controller(sequence, latency_ms))
    assert telemetry.latencies_ms == {1: 80.0, 2: 90.0}


def test_a_controller_that_accepted_nothing_has_no_latency():
    telemetry = Telemetry()
    telemetry.on_controller_status(_controller(0, 0.0, accepted=0))
    assert telemetry.summary()['latency_ms']['p50'] is None


def test_the_rate_leaves_out_the_pause_between_episodes():
    telemetry = Telemetry()
    for received_s in (0.0, 0.2, 0.4):
        telemetry.on_chunk(received_s)
    telemetry.episode_ended()
    for received_s in (10.0, 10.2):
        telemetry.on_chunk(received_s)
    assert telemetry.policy_hz() == pytest.approx(5.0)


def test_one_chunk_has_no_rate():
    telemetry = Telemetry()
    telemetry.on_chunk(1.0)
    assert telemetry.policy_hz() is None


def test_frames_are_counted_between_two_moments_at_which_the_camera_said_its_number():
    telemetry = Telemetry()
    for now_s, frames in ((1.0, 100), (2.0, 130), (3.0, 159)):
        telemetry.on_policy_status(_policy(frames, superseded=frames // 2), now_s)
    for now_s, published in ((0.5, 85), (1.5, 115), (2.5, 146), (3.5, 176)):
        telemetry.on_diagnostics([('camera', {'frames_published': str(published)})], now_s)
    assert telemetry.frames() == {
        'published': 31, 'received': 30, 'dropped': 1, 'superseded': 14, 'rejected': 0}


def test_frames_published_while_the_policy_was_being_loaded_are_not_dropped():
    telemetry = Telemetry()
    for now_s, frames, state in (
            (0.0, 0, UNCONFIGURED), (9.0, 0, UNCONFIGURED), (10.0, 1, IDLE), (11.0, 31, IDLE),
            (12.0, 61, IDLE)):
        telemetry.on_policy_status(_policy(frames, state=state), now_s)
    for second in range(13):
        telemetry.on_diagnostics([('camera', {'frames_published': str(30 * second)})], second)
    frames = telemetry.frames()
    assert (frames['published'], frames['received'], frames['dropped']) == (60, 60, 0)


def test_counters_read_long_apart_are_not_compared():
    telemetry = Telemetry()
    telemetry.on_policy_status(_policy(100), 1.0)
    telemetry.on_diagnostics([('camera', {'frames_published': '140'})], 2.0)
    assert telemetry.frames()['published'] is None


def test_the_times_of_an_inference_count_once():
    telemetry = Telemetry()
    for chunks, total_ms in ((0, 0.0), (1, 50.0), (1, 50.0), (2, 70.0)):
        telemetry.on_policy_status(_policy(chunks=chunks, total_ms=total_ms), 0.0)
    assert telemetry.model_ms['total_ms'] == [50.0, 70.0]


def test_diagnostic_values_are_found_whichever_node_reports_them():
    telemetry = Telemetry()
    telemetry.on_diagnostics([('policy_node: model', {'linear4bit_layers': '28'})], 0.0)
    assert telemetry.value('linear4bit_layers') == '28'
    assert telemetry.value('unknown') is None


def test_the_jitter_of_the_control_loop_is_what_the_controller_says_of_it():
    telemetry = Telemetry()
    assert telemetry.loop_jitter_ms() == {'p99': None, 'worst': None}
    telemetry.on_diagnostics([('controller_node: control', {
        'period_jitter_p99_ms': '0.64', 'period_jitter_worst_ms': '5.21'})], 0.0)
    assert telemetry.loop_jitter_ms() == {'p99': 0.64, 'worst': 5.21}
