"""What of a plan's text is drawn on a camera frame."""

import pytest

from vla_policy_node.evaluation.plans import DrawnPlan
from vla_policy_node.evaluation.plans import read_plan


def test_a_point_alone_is_marked_as_the_target():
    assert read_plan('at 0.47 0.81') == DrawnPlan(point=(0.47, 0.81), label='target')


def test_a_few_words_before_a_point_are_its_label():
    assert read_plan('red block at 0.47 0.81') == DrawnPlan(point=(0.47, 0.81), label='red block')


def test_many_words_before_a_point_are_the_caption():
    assert read_plan('pick up the red block at 1.00 0.00') == DrawnPlan(
        point=(1.0, 0.0), label='target', caption='pick up the red block')


@pytest.mark.parametrize('text', ['at 0.5, 0.25', 'at 0.5,0.25.', ' at  0.50 0.25 \n'])
def test_a_point_is_found_however_it_is_spaced(text):
    assert read_plan(text).point == (0.5, 0.25)


@pytest.mark.parametrize('text', [
    'red block at 120 88', 'move 1 block 0 times', 'at 1 0', 'at 0.47', 'at 0.47 1.81',
    'at -0.47 0.81', 'at nan nan', 'look at 0.4 0.5 and turn', 'that 0.47 0.81'])
def test_other_numbers_are_words(text):
    assert read_plan(text) == DrawnPlan(caption=text)


def test_no_plan_draws_nothing():
    assert read_plan('') == DrawnPlan()
