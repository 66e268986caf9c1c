"""The one-slot mailbox and the estimate of lost frames."""

from vla_policy_node.nodes.mailbox import Frame
from vla_policy_node.nodes.mailbox import LossEstimate
from vla_policy_node.nodes.mailbox import Mailbox

MS = 1_000_000


def frame(stamp_ms: int) -> Frame:
    return Frame(message=stamp_ms, stamp_ns=stamp_ms * MS, received_monotonic_s=0.0)


def lost_among(stamps_ms: list[int]) -> int:
    estimate = LossEstimate()
    for stamp_ms in stamps_ms:
        estimate.add(stamp_ms * MS)
    return estimate.lost


def test_the_newest_frame_wins_and_the_older_one_is_counted():
    mailbox = Mailbox()
    mailbox.put(frame(33))
    mailbox.put(frame(66))
    assert mailbox.take().message == 66
    assert (mailbox.received, mailbox.superseded) == (2, 1)


def test_a_frame_that_was_looked_at_is_not_superseded():
    mailbox = Mailbox()
    mailbox.put(frame(33))
    mailbox.take()
    mailbox.put(frame(66))
    assert mailbox.superseded == 0


def test_a_taken_frame_is_not_new_again():
    mailbox = Mailbox()
    mailbox.put(frame(33))
    assert mailbox.has_new
    mailbox.take()
    assert not mailbox.has_new


def test_a_late_frame_does_not_replace_a_newer_one():
    mailbox = Mailbox()
    mailbox.put(frame(66))
    mailbox.put(frame(33))
    assert mailbox.take().message == 66
    assert mailbox.out_of_order == 1


def test_a_clock_set_back_by_seconds_does_not_block_the_mailbox():
    mailbox = Mailbox()
    mailbox.put(frame(90_000))
    mailbox.put(frame(33))
    assert mailbox.take().message == 33


def test_an_even_rhythm_has_lost_nothing():
    assert lost_among(list(range(0, 2000, 33))) == 0


def test_a_gap_of_three_periods_has_lost_two_frames():
    assert lost_among([0, 100, 200, 300, 400, 500, 800, 900]) == 2


def test_jitter_of_a_quarter_period_is_no_loss():
    assert lost_among([0, 110, 195, 305, 390, 510, 600, 695, 810]) == 0


def test_every_second_frame_lost_is_seen_where_neighbours_arrive_at_times():
    stamps = [0, 100, 200, 300, 400, 600, 800, 1000, 1200, 1300]
    assert lost_among(stamps) == 4


def test_a_paused_camera_has_lost_nothing():
    assert lost_among([0, 100, 200, 300, 400, 500, 5000, 5100]) == 0
