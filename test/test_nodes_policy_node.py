"""The policy node over real DDS with a fake policy: lifecycle, goals, frames, questions."""

import time

import pytest

pytest.importorskip('rclpy')

from action_msgs.msg import GoalStatus  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from nodes_bench import FakePolicy  # noqa: E402
from nodes_bench import grey_image  # noqa: E402
from nodes_bench import running_graph  # noqa: E402
from nodes_bench import wait_until  # noqa: E402
from policy_node_bench import benches  # noqa: E402
from policy_node_bench import NAME  # noqa: E402
import rclpy  # noqa: E402
from vla_msgs.action import ExecuteInstruction  # noqa: E402
from vla_msgs.msg import PolicyStatus  # noqa: E402
from vla_msgs.srv import Ask  # noqa: E402

from vla_policy_node.nodes.conversions import time_message  # noqa: E402
from vla_policy_node.nodes.conversions import time_ns  # noqa: E402
from vla_policy_node.nodes.policy_node import PolicyNode  # noqa: E402
from vla_policy_node.policy import DecodeError  # noqa: E402
from vla_policy_node.prompts import InstructionError  # noqa: E402

Result = ExecuteInstruction.Result


@pytest.fixture
def make_bench():
    with benches() as make:
        yield make


def test_an_instruction_turns_frames_into_chunks(make_bench):
    bench = make_bench().start()
    bench.send()
    frame = grey_image(bench.graph.node, 50)
    bench.camera.publish(frame)
    chunk = wait_until(lambda: bench.chunks)[0]
    assert chunk.header.frame_id == 'base'
    assert chunk.period.nanosec == 50_000_000
    assert chunk.deltas[0].translation.x == 0.01
    assert chunk.deltas[0].gripper == 1.0
    assert list(chunk.token_ids) == [0, 1, 2, 3, 4, 5, 6]
    assert chunk.plan == '50'
    assert chunk.observation_stamp == frame.header.stamp


def test_without_an_instruction_no_chunk_is_published(make_bench):
    bench = make_bench().start()
    bench.film()
    bench.status_where(lambda status: status.frames_received > 3)
    assert bench.chunks == [] and bench.policy.instructions == []


def test_the_sequence_of_chunks_increases(make_bench):
    bench = make_bench().start()
    bench.film()
    bench.send()
    wait_until(lambda: len(bench.chunks) >= 4)
    sequences = [chunk.sequence for chunk in bench.chunks]
    assert sequences == sorted(set(sequences))


def test_the_policy_is_paced_by_the_period_of_its_action_space(make_bench):
    bench = make_bench().start()
    bench.film(period_s=0.005)
    bench.send()
    started_s = wait_until(lambda: bench.policy.started_s[:11] if len(bench.chunks) > 10 else [])
    # Ten periods of 50 ms, two of which a busy machine may have taken from the first.
    assert started_s[-1] - started_s[0] > 0.4


def test_while_it_thinks_older_frames_are_superseded(make_bench):
    bench = make_bench(FakePolicy(delay_s=0.1)).start()
    bench.film(period_s=0.01)
    bench.send()
    status = bench.status_where(
        lambda status: status.chunks_published >= 3 and status.frames_superseded > 5)
    assert status.camera_to_chunk_ms >= 100


def test_a_stale_frame_gives_a_status_and_no_chunk(make_bench):
    bench = make_bench(image_timeout_s=0.1).start()
    bench.send()
    bench.show(age_s=0.5)
    status = bench.status_where(lambda status: status.state == PolicyStatus.STALE_IMAGE)
    assert 'at most 0.100 s old' in status.state_text
    assert bench.chunks == []


def test_without_fresh_frames_the_instruction_ends(make_bench):
    bench = make_bench(image_wait_s=0.3).start()
    response = bench.result(bench.send())
    assert response.status == GoalStatus.STATUS_ABORTED
    assert response.result.error_code == Result.NO_FRESH_IMAGE
    assert 'no camera frame has come' in response.result.error_msg


def test_a_failed_decode_publishes_nothing_and_is_counted(make_bench):
    bench = make_bench(FakePolicy(script=(DecodeError('no bin'),))).start()
    bench.send()
    bench.show()
    status = bench.status_where(lambda status: status.decode_failures == 1)
    assert status.state == PolicyStatus.DECODE_FAILED
    assert bench.chunks == []


def test_failed_decodes_in_a_row_end_the_instruction(make_bench):
    bench = make_bench(
        FakePolicy(script=(DecodeError('no bin'),) * 9), max_decode_failures=3).start()
    bench.film()
    response = bench.result(bench.send())
    assert response.result.error_code == Result.DECODE_FAILED
    assert '3 times in a row: no bin' in response.result.error_msg
    assert bench.chunks == []


def test_failed_decodes_with_good_ones_between_do_not_end_it(make_bench):
    error = DecodeError('no bin')
    bench = make_bench(
        FakePolicy(script=(error, error, False) * 3), max_decode_failures=3).start()
    bench.film()
    bench.send()
    wait_until(lambda: len(bench.policy.script) == 0)
    wait_until(lambda: bench.status().chunks_published > 4)


def test_an_instruction_ends_when_the_policy_says_so(make_bench):
    bench = make_bench(FakePolicy(script=(False, False, True))).start()
    bench.film()
    response = bench.result(bench.send())
    assert response.status == GoalStatus.STATUS_SUCCEEDED
    assert (response.result.error_code, response.result.steps) == (Result.NONE, 3)
    wait_until(lambda: bench.chunks and bench.chunks[-1].deltas[0].terminate)
    bench.status_where(lambda status: (status.state, status.chunks_published) == (
        PolicyStatus.IDLE, 3))


def test_the_client_is_told_about_each_chunk(make_bench):
    bench = make_bench(FakePolicy(script=(False, True))).start()
    bench.film(level=9)
    bench.result(bench.send())
    wait_until(lambda: len(bench.feedback) == 2)
    assert [message.steps for message in bench.feedback] == [1, 2]
    assert bench.feedback[0].state == PolicyStatus.RUNNING
    assert bench.feedback[0].plan == '9'


def test_an_instruction_ends_when_its_time_is_up(make_bench):
    bench = make_bench(max_duration_s=0.3).start()
    bench.film()
    response = bench.result(bench.send())
    assert response.result.error_code == Result.TIMEOUT


def test_a_cancelled_instruction_publishes_no_more(make_bench):
    bench = make_bench().start()
    bench.film()
    handle = bench.send()
    wait_until(lambda: bench.chunks)
    bench.graph.ask(handle.cancel_goal_async)
    response = bench.result(handle)
    assert response.status == GoalStatus.STATUS_CANCELED
    assert response.result.error_code == Result.CANCELED
    ended_ns = bench.now_ns()
    time.sleep(0.2)
    assert bench.published_after(ended_ns) == []


def test_a_new_instruction_takes_over(make_bench):
    bench = make_bench().start()
    bench.film()
    first = bench.send('touch it')
    wait_until(lambda: bench.chunks)
    bench.send('push it')
    response = bench.result(first)
    assert response.status == GoalStatus.STATUS_ABORTED
    assert response.result.error_code == Result.PREEMPTED
    bench.status_where(lambda status: status.instruction == 'push it')
    wait_until(lambda: bench.policy.instructions[-1] == 'push it')


def test_a_new_instruction_is_refused_where_that_is_wanted(make_bench):
    bench = make_bench(on_new_goal='refuse').start()
    bench.film()
    bench.send('touch it')
    wait_until(lambda: bench.chunks)
    assert not bench.send('push it').accepted
    bench.statuses.clear()
    assert bench.status().instruction == 'touch it'


@pytest.mark.parametrize('instruction', ['', '   ', 'a' * 100_000, 'a\x07b'])
def test_an_unusable_instruction_is_refused_with_a_reason(make_bench, instruction):
    bench = make_bench().start()
    response = bench.result(bench.send(instruction))
    assert response.result.error_code == Result.INVALID_INSTRUCTION
    assert 'expected' in response.result.error_msg


def test_an_instruction_that_the_checkpoint_cannot_be_asked_ends_with_a_reason(make_bench):
    bench = make_bench(FakePolicy(script=(InstructionError("found 'out:'"),))).start()
    bench.film()
    response = bench.result(bench.send('go out: now'))
    assert response.result.error_code == Result.INVALID_INSTRUCTION
    assert response.result.error_msg == "found 'out:'"
    assert bench.chunks == []
    bench.send()
    wait_until(lambda: bench.chunks)


def test_an_inactive_node_refuses_instructions_with_a_reason(make_bench):
    bench = make_bench()
    assert bench.change(Transition.TRANSITION_CONFIGURE)
    wait_until(bench.client.server_is_ready)
    response = bench.result(bench.send())
    assert response.result.error_code == Result.NOT_ACTIVE


def test_deactivating_ends_the_instruction_and_cleanup_frees_the_model(make_bench):
    bench = make_bench().start()
    bench.film()
    handle = bench.send()
    wait_until(lambda: bench.chunks)
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    assert bench.result(handle).result.error_code == Result.NOT_ACTIVE
    assert bench.change(Transition.TRANSITION_CLEANUP)
    assert bench.policy.closed
    ended_ns = bench.now_ns()
    time.sleep(0.2)
    assert bench.published_after(ended_ns) == []


@pytest.mark.parametrize('transition', [
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP, 200])
def test_a_transition_that_does_not_fit_is_refused_and_the_node_goes_on(make_bench, transition):
    bench = make_bench().start()
    assert not bench.change(transition)
    bench.film()
    bench.send()
    wait_until(lambda: bench.chunks)


def test_it_can_be_configured_again_after_a_cleanup(make_bench):
    bench = make_bench().start()
    assert bench.change(Transition.TRANSITION_DEACTIVATE)
    assert bench.change(Transition.TRANSITION_CLEANUP)
    bench.start()
    bench.film()
    bench.send()
    wait_until(lambda: bench.chunks)


def test_a_policy_that_ignores_its_image_is_not_configured(make_bench, capfd):
    bench = make_bench(FakePolicy(blind=True))
    assert not bench.change(Transition.TRANSITION_CONFIGURE)
    assert bench.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert 'black and a white image' in capfd.readouterr().err
    bench.status_where(lambda status: 'black and a white' in status.state_text)


def test_a_missing_checkpoint_is_named_and_the_transition_refused(make_bench, capfd):
    bench = make_bench()
    bench.node._make_policy = PolicyNode.__init__.__defaults__[0]
    assert not bench.change(Transition.TRANSITION_CONFIGURE)
    assert 'expected a checkpoint directory' in capfd.readouterr().err


def test_lost_frames_are_estimated_from_their_stamps(make_bench):
    bench = make_bench().start()
    frame = grey_image(bench.graph.node)
    started_ns = time_ns(frame.header.stamp)
    mailbox = bench.node._worker.mailboxes['primary']
    for count, index in enumerate((0, 1, 2, 3, 4, 5, 8)):
        frame.header.stamp = time_message(started_ns - 10**9 + index * 10**8)
        bench.camera.publish(frame)
        # The queue holds one frame: if it were still there, the next one would push it out.
        wait_until(lambda so_far=count: mailbox.received > so_far)
    bench.status_where(lambda status: status.frames_lost == 2)


def test_a_question_is_answered_about_the_newest_frame(make_bench):
    bench = make_bench().start()
    started_ns = bench.now_ns()
    bench.film(level=33)
    bench.status_where(lambda status: status.frames_received > 0)
    answer = bench.graph.call(
        Ask, f'{NAME}/ask', Ask.Request(question='how bright?', max_new_tokens=7))
    assert answer.success and answer.answer == 'how bright? 33 7' and answer.message == ''
    assert started_ns < time_ns(answer.observation_stamp) < bench.now_ns()


def test_what_speaks_against_an_answer_comes_with_it(make_bench):
    bench = make_bench().start()
    bench.policy.answer_caution = 'it has lost its words'
    bench.film()
    bench.status_where(lambda status: status.frames_received > 0)
    answer = bench.graph.call(Ask, f'{NAME}/ask', Ask.Request(question='how bright?'))
    assert answer.success and answer.message == 'it has lost its words'


def test_a_question_without_a_frame_gets_a_reason(make_bench):
    answer = make_bench().start().graph.call(
        Ask, f'{NAME}/ask', Ask.Request(question='how bright?'))
    assert not answer.success
    assert 'no frame has come' in answer.message


def test_a_question_does_not_end_a_running_instruction(make_bench):
    bench = make_bench().start()
    bench.film()
    bench.send()
    wait_until(lambda: bench.chunks)
    assert bench.graph.call(Ask, f'{NAME}/ask', Ask.Request(question='how bright?')).success
    bench.chunks.clear()
    wait_until(lambda: len(bench.chunks) > 3)


def test_diagnostics_name_the_node_and_its_counters(make_bench):
    bench = make_bench().start()
    arrays = bench.graph.collect(DiagnosticArray, '/diagnostics')
    status = wait_until(lambda: arrays and arrays[-1].status[0])
    assert status.name == NAME
    assert {'frames_received', 'linear4bit_layers'} <= {item.key for item in status.values}


def test_a_destroyed_node_leaves_the_graph_before_it_is_collected():
    with running_graph() as graph:
        context = rclpy.Context()
        rclpy.init(context=context, args=[])
        node = PolicyNode(lambda _: FakePolicy(), context=context)
        wait_until(lambda: graph.node.count_services(f'{NAME}/change_state') == 1)
        node.destroy_node()
        context.try_shutdown()
        wait_until(lambda: graph.node.count_services(f'{NAME}/change_state') == 0)
        assert 'policy_node' not in graph.node.get_node_names()
