"""What the policy node says about itself, from what it was told."""

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')

from vla_msgs.msg import PolicyStatus  # noqa: E402

from vla_policy_node.nodes import diagnostics  # noqa: E402
from vla_policy_node.nodes.inference_worker import Failure  # noqa: E402
from vla_policy_node.nodes.policy_report import describe_model  # noqa: E402
from vla_policy_node.nodes.policy_report import PolicyReport  # noqa: E402
from vla_policy_node.nodes.status import POLICY_TEXT  # noqa: E402


def step(**timing_ms: float) -> SimpleNamespace:
    return SimpleNamespace(chunk=SimpleNamespace(timing_ms=timing_ms))


@pytest.fixture
def report():
    report = PolicyReport()
    report.loaded()
    report.began()
    return report


def test_a_report_without_a_model_says_so():
    status = PolicyReport().status(None, '')
    assert (status.state, status.state_text) == (
        PolicyStatus.UNCONFIGURED, 'no checkpoint is loaded')


def test_a_chunk_is_counted_with_its_times_and_those_not_measured_are_zero(report):
    report.stepped(step(vision=20.0, total=50.0), latency_ms=80.0)
    status = report.status(None, 'pick it')
    assert (status.state, status.instruction) == (PolicyStatus.RUNNING, 'pick it')
    assert (status.chunks_published, status.camera_to_chunk_ms) == (1, 80.0)
    assert (status.preprocess_ms, status.vision_ms, status.total_ms) == (0.0, 20.0, 50.0)


def test_a_failure_is_named_and_only_failed_decodes_are_counted(report):
    report.failed(Failure.STALE_IMAGE, '0.3 s old')
    assert report.status(None, '').state_text.endswith('(0.3 s old)')
    report.failed(Failure.DECODE_FAILED, 'no bin')
    status = report.status(None, '')
    assert (status.state, status.decode_failures) == (PolicyStatus.DECODE_FAILED, 1)


def test_a_model_that_was_lost_is_told_with_the_reason_until_one_is_loaded(report):
    report.failed(Failure.OUT_OF_MEMORY, 'CUDA out of memory')
    report.state = PolicyStatus.UNCONFIGURED
    assert report.status(None, '').state_text == 'no checkpoint is loaded (CUDA out of memory)'
    report.loaded()
    assert report.status(None, '').state_text == 'loaded, waiting to be activated'


def test_a_policy_that_knows_nothing_of_its_memory_is_described_by_no_line():
    assert describe_model(SimpleNamespace()) == []


def test_a_policy_is_described_by_its_memory_and_what_was_quantised_and_what_not():
    policy = SimpleNamespace(
        memory='73 MB', quantized_vision_layers=9, kept_layers=('projector.fc1', 'head.out'))
    assert describe_model(policy) == [
        'memory: 73 MB', '9 layers of vision and projector are quantised too',
        '2 layers are not quantised because of their shape: projector.fc1, head.out']


def test_diagnostics_say_what_the_model_takes(report):
    policy = SimpleNamespace(memory='73 MB', quantized_vision_layers=9, refused_layers=0)
    values = report.diagnose(policy)[2]
    assert (values['memory'], values['quantized_vision_layers']) == ('73 MB', 9)


def test_a_problem_that_was_overcome_is_not_shown(report):
    report.failed(Failure.STALE_IMAGE, '0.3 s old')
    report.stepped(step(), latency_ms=80.0)
    assert report.status(None, '').state_text == 'carrying out the instruction'


def test_a_new_model_starts_with_all_counters_at_zero(report):
    report.stepped(step(), latency_ms=80.0)
    report.failed(Failure.DECODE_FAILED, 'no bin')
    report.loaded()
    status = report.status(None, '')
    assert (status.chunks_published, status.decode_failures) == (0, 0)
    assert status.state_text == 'loaded, waiting to be activated'


def test_frames_of_all_cameras_are_added_up(report):
    box = SimpleNamespace(received=5, superseded=2, out_of_order=1, loss=SimpleNamespace(lost=3))
    worker = SimpleNamespace(mailboxes={'primary': box, 'wrist': box}, frames_refused=4)
    status = report.status(worker, '')
    assert (status.frames_received, status.frames_superseded) == (10, 4)
    assert (status.frames_lost, status.frames_rejected) == (6, 6)


def test_a_rate_needs_two_chunks_and_is_measured_afresh_for_each_instruction(report):
    report.stepped(step(), latency_ms=1.0)
    assert report.status(None, '').rate_hz == 0.0
    report.stepped(step(), latency_ms=1.0)
    assert report.status(None, '').rate_hz > 0.0
    report.began()
    assert report.status(None, '').rate_hz == 0.0


@pytest.mark.parametrize(('failure', 'level'), [
    (Failure.STALE_IMAGE, diagnostics.WARN), (Failure.FAULT, diagnostics.ERROR)])
def test_diagnostics_tell_trouble_from_an_error(report, failure, level):
    report.failed(failure, 'why')
    report.status(None, '')
    found, text, values = report.diagnose(SimpleNamespace(quantization='nf4'))
    assert (found, values['quantization'], values['unnorm_key']) == (level, 'nf4', '')
    assert text.endswith('(why)')


def test_every_state_of_the_message_has_a_text():
    assert set(POLICY_TEXT) == {getattr(PolicyStatus, name) for name in (
        'UNCONFIGURED', 'INACTIVE', 'IDLE', 'RUNNING', 'WAITING_FOR_IMAGE', 'STALE_IMAGE',
        'DECODE_FAILED', 'FAULT')}
