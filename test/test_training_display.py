"""What a run prints: a live picture on a terminal, one plain line per record elsewhere."""

import io

import pytest
from rich.console import Console

from vla_policy_node.training.display import Display
from vla_policy_node.training.display import duration

TRAIN = {'kind': 'train', 'step': 100, 'of': 400, 'minutes': 1.0, 'samples_per_s': 52.125,
         'waiting_share': 0.03, 'lr': 0.0005, 'loss': {'all': 2.125, 'drawer': 2.5}, 'skipped': 2}
VALIDATION = {'kind': 'validation', 'step': 100, 'loss': {'all': 2.0},
              'token_accuracy': {'x': 0.5, 'all': 0.41}, 'majority_accuracy': {'all': 0.18},
              'l1_normalised': {'all': 0.0834}, 'answers': {'exact_match': 0.75, 'count': 64}}
OWN_STATES = {'stage': 'own-states-1', 'frames': 5120, 'minutes': 20.0,
              'per_verb': {'touch': [12, 32], 'pick': [0, 32]}, 'successes': 12, 'episodes': 64,
              'nearest_block_is_target': 60}
MIXTURE = {'kind': 'mixture', 'sources': [
    {'name': 'drawer', 'records': 1234, 'share': 0.5, 'seen_per_record': 3.2, 'episodes': 12}]}


def shown(records, stages=None, terminal=False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=terminal, no_color=True)
    with Display('drawer', stages or {'': 400}, console) as display:
        for record in records:
            display(record)
    return file.getvalue()


def test_without_a_terminal_a_training_record_is_one_plain_line():
    assert shown([TRAIN]) == (
        'step 100/400  25 %  loss all 2.12  drawer 2.5  lr 0.0005  samples/s 52.1'
        '  waiting for data 3 %  skipped records 2  time 1 min\n')


def test_the_time_left_is_estimated_from_the_newest_records():
    later = {**TRAIN, 'step': 200, 'minutes': 3.0}
    assert shown([TRAIN, later]).splitlines()[1].endswith('time 3 min  4 min left')


def test_a_validation_names_accuracy_beside_the_majority():
    assert shown([VALIDATION]) == (
        'validation at step 100: loss all 2  token accuracy 41 % (majority 18 %)  L1 0.083'
        '  answers 75 % of 64\n')


def test_steps_of_later_stages_count_from_the_end_of_the_earlier_ones():
    record = {'stage': 'mix-1', 'step': 50, 'of': 100, 'loss': {'robot': None},
              'held_out': {'pointing_px': 4.5}}
    assert shown([record], {'align': 300, 'mix-1': 100}) == (
        'mix-1 step 50/100  88 %  loss robot ?  held out pointing_px 4.5\n')


def test_episodes_are_counted_per_verb():
    assert shown([OWN_STATES]) == (
        'own-states-1  12 of 64 episodes succeeded  touch 12/32  pick 0/32'
        '  nearest block is the named one 60  5,120 frames  20 min\n')


def test_scenes_that_are_simulated_are_announced():
    assert shown([{'stage': 'demonstrations', 'scenes': 600}]) == 'demonstrations  600 scenes\n'


def test_events_and_the_mixture_are_lines_too():
    event = {'kind': 'event', 'name': 'early_stop', 'detail': 'no better for [3] times',
             'step': 1500}
    assert shown([MIXTURE, event]) == (
        'mixture: drawer 50 %, 1,234 records, each seen 3.20 times\n'
        'early stop at step 1,500: no better for [3] times\n')


def test_a_terminal_shows_a_bar_with_the_newest_figures():
    text = shown([MIXTURE, TRAIN, VALIDATION], terminal=True)
    for expected in ('100/400', '25 %', 'waiting for data', 'drawer 2.5', 'seen per record',
                     'last validation', 'majority 18 %', '━'):
        assert expected in text


@pytest.mark.parametrize(('minutes', 'text'), [
    (0.5, '30 s'), (12.4, '12 min'), (59.8, '1 h 00 min'), (185.0, '3 h 05 min')])
def test_durations_are_in_words(minutes, text):
    assert duration(minutes) == text
