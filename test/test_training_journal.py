"""The log of a training survives kills and full disks, and readers get what counts."""

import json
import logging
import os

import numpy as np
from PIL import Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vla_policy_node.training.journal import Journal
from vla_policy_node.training.journal import read_journal
from vla_policy_node.training.journal import settled
from vla_policy_node.training.journal import Timeline
from vla_policy_node.training.tensorboard import scalars
from vla_policy_node.training.tensorboard import TensorBoard


def train(step, loss, **more):
    return {'kind': 'train', 'step': step, 'of': 400, 'loss': {'all': loss}, **more}


class FullAtFirst:
    """A file on a disk that is full for the first writes."""

    name = 'log.jsonl'

    def __init__(self, file, failures: list[int | None]) -> None:
        self._file = file
        self._failures = failures

    def write(self, data: bytes) -> int:
        if self._failures:
            fitted = self._failures.pop(0)
            if fitted is None:
                raise OSError(28, 'No space left on device')
            return self._file.write(data[:fitted])
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def test_a_record_is_one_line_that_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / 'run')
    journal.write(train(100, 2.5))
    assert (tmp_path / 'run' / 'log.jsonl').read_text() == (
        '{"kind": "train", "step": 100, "of": 400, "loss": {"all": 2.5}}\n')


def test_numpy_numbers_are_plain_and_what_is_not_finite_is_null(tmp_path):
    with Journal(tmp_path) as journal:
        journal.write({'loss': np.float32(0.5), 'n': np.int64(3), 'list': np.array([1.0, np.nan]),
                       'path': tmp_path, 'lr': float('inf')})
    assert read_journal(tmp_path) == [
        {'loss': 0.5, 'n': 3, 'list': [1.0, None], 'path': str(tmp_path), 'lr': None}]


def test_every_sink_hears_every_record(tmp_path):
    heard = []
    with Journal(tmp_path, [heard.append]) as journal:
        journal.write(train(100, np.float32(2.5)))
    assert heard == [train(100, 2.5)]


def test_a_resumed_run_appends_after_the_half_line_of_a_killed_one(tmp_path):
    with Journal(tmp_path) as journal:
        journal.write(train(100, 2.5))
    with (tmp_path / 'log.jsonl').open('a') as log:
        log.write('{"kind": "train", "st')
    assert read_journal(tmp_path) == [train(100, 2.5)]
    with Journal(tmp_path) as journal:
        journal.write(train(200, 2.0))
    assert read_journal(tmp_path) == [train(100, 2.5), train(200, 2.0)]


def test_a_full_disk_is_survived_counted_and_warned_about_once(tmp_path, caplog):
    if not os.path.exists('/dev/full'):
        pytest.skip('needs /dev/full')
    (tmp_path / 'log.jsonl').symlink_to('/dev/full')
    heard = []
    with caplog.at_level(logging.WARNING), Journal(tmp_path, [heard.append]) as journal:
        journal.write(train(100, 2.5))
        journal.write(train(200, 2.0))
    assert journal.lost == 2
    assert len(heard) == 2
    assert len(caplog.records) == 1
    assert 'No space left' in caplog.text


def test_when_there_is_room_again_the_log_says_what_is_missing(tmp_path):
    journal = Journal(tmp_path)
    journal._file = FullAtFirst(journal._file, [None, 5])
    for step in (100, 200, 300, 400):
        journal.write(train(step, 2.0))
    event, *records = read_journal(tmp_path)
    assert event == {
        'kind': 'event', 'name': 'disk_full', 'detail': '2 records were not written'}
    assert [record['step'] for record in records] == [300, 400]


def test_a_folder_without_a_log_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'log\.jsonl'):
        read_journal(tmp_path)


def test_of_a_repeated_step_the_last_record_counts():
    assert settled([train(100, 3.0), train(200, 2.5), train(200, 2.4), train(300, 2.0)]) == [
        train(100, 3.0), train(200, 2.4), train(300, 2.0)]


def test_steps_that_a_resumed_run_has_not_reached_again_do_not_count():
    validation = {'kind': 'validation', 'step': 300, 'loss': {'all': 2.0}}
    resumed = {'kind': 'event', 'name': 'resumed', 'step': 200}
    records = [train(200, 2.5), train(300, 2.0), validation, resumed, train(210, 2.4)]
    assert settled(records) == [train(200, 2.5), resumed, train(210, 2.4)]


def test_equal_steps_of_different_stages_both_count():
    records = [train(100, 3.0, stage='align'), train(100, 2.0, stage='mix')]
    assert settled(records) == records


def test_steps_add_up_over_the_stages():
    timeline = Timeline()
    records = [train(100, 3.0, stage='align'), train(200, 2.5, stage='align'),
               {'stage': 'own-states', 'frames': 12}, train(50, 2.0, stage='mix')]
    assert [timeline.place(record) for record in records] == [100, 200, 200, 250]


def test_curves_are_named_after_what_was_measured_on():
    record = {'stage': 'mix', 'step': 100, 'of': 200, 'lr': 0.5, 'loss': {'robot': 2.0},
              'held_out': {'pointing_px': 4.5}, 'per_verb': {'touch': [1, 4], 'pick': [0, 0]}}
    assert dict(scalars(record)) == {
        'train/lr': 0.5, 'train/loss/robot': 2.0, 'validation/held_out/pointing_px': 4.5,
        'validation/success/touch': 0.25}


def test_tensorboard_gets_curves_pictures_and_the_mixture(tmp_path):
    Image.new('RGB', (8, 6)).save(tmp_path / 'one.png')
    with Journal(tmp_path, [TensorBoard(tmp_path)]) as journal:
        journal.write({'kind': 'mixture', 'sources': [
            {'name': 'drawer', 'records': 10, 'share': 1.0, 'seen_per_record': 2.0}]})
        journal.write(train(100, 2.5))
        journal.write({'kind': 'validation', 'step': 100, 'token_accuracy': {'x': 0.5},
                       'samples': [{'picture': 'one.png'}, {'picture': ''}]})
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars('train/loss/all')] == [(100, 2.5)]
    assert events.Scalars('validation/token_accuracy/x')[0].value == 0.5
    assert events.Images('validation/pictures/0')[0].width == 8
    assert b'| drawer | 10 | 100.0% | 2.00 |' in events.Tensors(
        'mixture/text_summary')[0].tensor_proto.string_val[0]


def test_a_resumed_run_goes_on_in_tensorboard_where_the_log_stands(tmp_path):
    (tmp_path / 'log.jsonl').write_text(json.dumps(train(400, 2.0, stage='align')) + '\n')
    board = TensorBoard(tmp_path)
    board(train(50, 1.0, stage='mix'))
    board.close()
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert [event.step for event in events.Scalars('train/loss/all')] == [450]
