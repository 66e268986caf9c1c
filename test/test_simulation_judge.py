"""The judge accepts what the task says and nothing else."""

import numpy as np
import pytest

from vla_policy_node.simulation import SceneState
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TaskJudge

START = {'red': (0.5, 0.0, 0.02), 'blue': (0.42, 0.14, 0.02)}


def _state(time_s, tool=(0.5, 0.0, 0.2), held=None, contacts=None, **moved):
    return SceneState(
        blocks={c: np.array(moved.get(c, p), dtype=float) for c, p in START.items()},
        tool=np.array(tool), gripper=1.0, held=held, last_contact_s=contacts or {}, time_s=time_s)


def _judge(verb, colour='red', **initial):
    return TaskJudge(Task(verb, colour), _state(0.0, **initial))


def test_nothing_has_succeeded_at_the_start():
    judge = _judge('touch')
    assert not judge.update(_state(0.2))
    assert not judge.succeeded
    assert judge.reason == 'the tool is 16.0 cm from the red block'


def test_contact_with_the_named_block_is_a_touch():
    judge = _judge('touch')
    assert judge.update(_state(0.2, contacts={'red': 0.1}))
    assert judge.reason == 'touched the red block'


@pytest.mark.parametrize(('tool', 'near'), [
    ((0.5, 0.0, 0.054), True),     # 1.4 cm above the top
    ((0.5, 0.0, 0.056), False),
    ((0.534, 0.0, 0.02), True),    # 1.4 cm before the front
    ((0.536, 0.0, 0.02), False),
])
def test_coming_within_one_and_a_half_centimetres_is_a_touch(tool, near):
    assert _judge('touch').update(_state(0.2, tool=tool)) is near


def test_touching_another_block_first_is_never_a_touch():
    judge = _judge('touch')
    assert not judge.update(_state(0.2, contacts={'blue': 0.1}))
    assert not judge.update(_state(0.4, contacts={'blue': 0.1, 'red': 0.3}))
    assert judge.reason == 'touched the blue block first'


def test_contact_from_before_the_task_does_not_count():
    judge = _judge('touch', contacts={'blue': 0.0})
    assert not judge.update(_state(0.2, contacts={'blue': 0.1}))
    assert not judge.update(_state(0.4, contacts={'blue': 0.1}))
    assert judge.update(_state(0.6, contacts={'blue': 0.1, 'red': 0.5}))


def test_contact_with_another_block_that_begins_anew_does_count():
    judge = _judge('touch', contacts={'blue': 0.0})
    judge.update(_state(0.2, contacts={'blue': 0.1}))
    judge.update(_state(0.4, contacts={'blue': 0.1}))
    judge.update(_state(0.6, contacts={'blue': 0.5}))
    assert not judge.update(_state(0.8, contacts={'blue': 0.5, 'red': 0.7}))


@pytest.mark.parametrize(('height', 'held', 'done'), [
    (0.071, 'red', True),
    (0.069, 'red', False),
    (0.071, None, False),
])
def test_a_pick_is_a_held_block_five_centimetres_up(height, held, done):
    assert _judge('pick').update(_state(0.2, held=held, red=(0.5, 0.0, height))) is done


@pytest.mark.parametrize(('verb', 'y', 'done'), [
    ('push left', 0.061, True),
    ('push left', 0.059, False),
    ('push left', -0.061, False),
    ('push right', -0.061, True),
    ('push right', -0.059, False),
    ('push right', 0.061, False),
])
def test_a_push_is_six_centimetres_to_the_robots_own_side(verb, y, done):
    assert _judge(verb).update(_state(0.2, red=(0.5, y, 0.02))) is done


def test_pushing_another_block_is_no_push():
    assert not _judge('push left').update(_state(0.2, blue=(0.42, 0.30, 0.02)))


def test_a_success_is_final():
    judge = _judge('push left')
    judge.update(_state(0.2, red=(0.5, 0.07, 0.02)))
    assert judge.update(_state(0.4, red=(0.5, 0.0, 0.02)))


def test_the_nearest_block_follows_the_tool():
    judge = _judge('touch')
    assert judge.nearest_block == 'red'
    judge.update(_state(0.2, tool=(0.42, 0.13, 0.1)))
    assert judge.nearest_block == 'blue'


def test_a_task_about_an_absent_block_is_refused():
    with pytest.raises(ValueError, match='there is no green block .*only: red, blue'):
        _judge('pick', 'green')
