"""States on disk are whole or absent, and figures of a validation add up."""

import errno

import numpy as np
import pytest
import torch

from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.state import StateFolder
from vla_policy_node.training.finetune.tally import majority_bins
from vla_policy_node.training.finetune.tally import Tally


class FullDisk:
    """Pickles into more bytes than fit: the disk says so while torch writes them."""

    def __reduce__(self):
        raise OSError(errno.ENOSPC, 'No space left on device')


def test_the_last_two_states_are_kept_and_the_newest_is_loaded(tmp_path):
    states = StateFolder(tmp_path)
    for step in (3, 6, 9):
        states.save(step, {'step': step, 'weights': {'a': torch.ones(2)}})
    assert states.steps() == [6, 9]
    assert states.load()['step'] == 9


def test_a_folder_without_states_has_none_to_load(tmp_path):
    assert StateFolder(tmp_path / 'new').load() is None


def test_a_failed_write_leaves_the_older_state_and_no_half_of_a_new_one(tmp_path):
    states = StateFolder(tmp_path)
    states.save(1, {'step': 1})
    with pytest.raises(OSError) as caught:
        states.save(2, {'step': FullDisk()})
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ['state-000000001.pt']


def test_a_damaged_newest_state_gives_way_to_the_one_before(tmp_path):
    states = StateFolder(tmp_path)
    for step in (1, 2):
        states.save(step, {'step': step})
    newest = tmp_path / 'state-000000002.pt'
    newest.write_bytes(newest.read_bytes()[:100])
    assert states.load()['step'] == 1


def test_what_a_kill_left_half_written_is_cleared(tmp_path):
    (tmp_path / 'state-000000004.partial').write_bytes(b'half')
    assert StateFolder(tmp_path).load() is None
    assert list(tmp_path.iterdir()) == []


ACTIONS = AddedTokens(first_id=100)


def robot_example(bins):
    answer = 100 + np.array(bins)
    nothing = np.full(7, -1)
    return Example(kind='robot', asked='', inputs={}, answer=answer, bins=np.array(bins),
                   dimensions=nothing, wanted=ACTIONS.bin_values[np.array(bins)][None])


def text_example(answer):
    nothing = np.full(len(answer), -1)
    return Example(kind='text', asked='', inputs={}, answer=np.array(answer), bins=nothing,
                   dimensions=nothing, wanted=np.empty((0, 7)))


def test_accuracy_baseline_and_error_are_counted_per_dimension():
    tally = Tally(ACTIONS, majority=np.array([0, 0, 0, 0, 0, 0, 255]))
    for gripper, guessed in ((255, 255), (255, 0), (0, 0)):
        guess = np.array([128] * 6 + [guessed])
        tally.add('arm', robot_example([128] * 6 + [gripper]), np.full(7, 2.0), 100 + guess, guess)
    figures = tally.figures()
    assert figures['token_accuracy']['gripper'] == pytest.approx(2 / 3)
    assert figures['token_accuracy']['x'] == 1.0
    assert figures['token_accuracy']['all'] == pytest.approx(20 / 21)
    assert figures['majority_accuracy'] == pytest.approx(
        {**dict.fromkeys(('x', 'y', 'z', 'roll', 'pitch', 'yaw'), 0.0), 'gripper': 2 / 3,
         'all': 2 / 21})
    assert figures['l1_normalised']['gripper'] == pytest.approx((255 / 128) / 3)
    assert figures['loss'] == {'all': 2.0, 'arm': 2.0}
    assert 'answers' not in figures


def test_an_answer_is_exact_only_when_every_token_is():
    tally = Tally(ACTIONS, majority=np.zeros(7, int))
    tally.add('chat', text_example([5, 6, 2]), np.ones(3), np.array([5, 6, 2]), np.zeros(3))
    tally.add('chat', text_example([5, 6, 2]), np.ones(3), np.array([5, 7, 2]), np.zeros(3))
    assert tally.figures() == {'loss': {'all': 1.0, 'chat': 1.0},
                               'answers': {'exact_match': 0.5, 'count': 2}}


def test_the_majority_is_the_most_frequent_bin_of_each_dimension():
    bins = np.array([[1] * 7, [1] * 6 + [9], [2] * 6 + [9]])
    assert majority_bins(bins).tolist() == [1, 1, 1, 1, 1, 1, 9]
