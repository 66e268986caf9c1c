"""Tasks are found by name, instruction and paraphrase, and unknown ones are refused clearly."""

import pytest

from vla_policy_node.simulation import COLOURS
from vla_policy_node.simulation import parse_task
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TASKS
from vla_policy_node.simulation import VERBS


def test_there_is_one_task_for_each_verb_and_colour():
    assert len(TASKS) == 16
    assert {(task.verb, task.colour) for task in TASKS} == {
        (verb, colour) for verb in VERBS for colour in COLOURS}


@pytest.mark.parametrize('text', [
    'pick red',
    'pick up the red block',
    '  Pick up the  RED block. ',
    'lift the red block',
])
def test_a_task_is_found_by_any_of_its_texts(text):
    assert parse_task(text) == Task('pick', 'red')


def test_every_text_of_every_task_leads_back_to_it():
    for task in TASKS:
        assert {parse_task(text) for text in (task.name, *task.instructions)} == {task}


def test_no_two_tasks_share_a_text():
    texts = [text for task in TASKS for text in (task.name, *task.instructions)]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize('text', ['', 'pick purple', 'dance'])
def test_an_unknown_task_is_refused_with_a_list_of_the_known_ones(text):
    with pytest.raises(ValueError, match='push left red') as caught:
        parse_task(text)
    assert '\n' not in str(caught.value)
    assert all(task.name in str(caught.value) for task in TASKS)


def test_a_task_of_unknown_verb_or_colour_cannot_be_made():
    with pytest.raises(ValueError, match="verb must be one of touch, .*found 'kick'"):
        Task('kick', 'red')
    with pytest.raises(ValueError, match="colour must be one of red, .*found 'pink'"):
        Task('pick', 'pink')
