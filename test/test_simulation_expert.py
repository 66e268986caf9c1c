"""The scripted expert does every task from the state alone; the floors below it fail."""

from dataclasses import replace

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from vla_policy_node.simulation import expert_action
from vla_policy_node.simulation import run_episode
from vla_policy_node.simulation import SceneState
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def sim():
    """Return a simulator without cameras."""
    return TabletopSim(image_size=None)


def _state(tool=(0.5, 0.0, 0.2), gripper=1.0, held=None, red=(0.5, 0.0, 0.02)):
    return SceneState(
        blocks={'red': np.array(red), 'blue': np.array((0.42, 0.14, 0.02))},
        tool=np.array(tool), gripper=gripper, held=held, last_contact_s={}, time_s=0.0)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_the_expert_does_every_task(sim, task):
    for seed in (100, 101, 102):
        sim.reset(seed, task)
        outcome = run_episode(sim, task, lambda sim: expert_action(sim.state(), task))
        assert outcome.succeeded, outcome.reason
        assert outcome.steps <= 20
        assert outcome.nearest_block == task.colour


@pytest.mark.parametrize('verb', ['touch', 'pick', 'push left', 'push right'])
def test_the_expert_recovers_from_noise_and_from_a_late_start_of_its_actions(sim, verb):
    task = Task(verb, 'green')
    rng = np.random.default_rng(0)

    def late_and_noisy(sim):
        action = expert_action(sim.state(), task)
        action[:3] += rng.normal(0, 0.008, 3)
        sim.step(0.1)  # as if the action had taken so long to compute
        return action

    for seed in (200, 201):
        sim.reset(seed, task)
        assert run_episode(sim, task, late_and_noisy).succeeded


def test_the_expert_takes_over_in_the_middle_of_another_task(sim):
    first, second = Task('pick', 'red'), Task('push left', 'red')
    sim.reset(3, second)
    run_episode(sim, first, lambda sim: expert_action(sim.state(), first))
    assert sim.state().held == 'red'
    assert run_episode(sim, second, lambda sim: expert_action(sim.state(), second)).succeeded


def test_doing_nothing_does_no_task(sim):
    for task in TASKS[::5]:
        sim.reset(0, task)
        outcome = run_episode(
            sim, task, lambda sim: np.array([0, 0, 0, 0, 0, 0, 1.0]), max_steps=10)
        assert not outcome.succeeded
        assert outcome.steps == 10


def test_the_expert_told_the_wrong_colour_touches_the_wrong_block(sim):
    task = Task('touch', 'red')
    sim.reset(1, task)
    wrong = Task('touch', next(c for c in sim.state().blocks if c != 'red'))
    outcome = run_episode(sim, task, lambda sim: expert_action(sim.state(), wrong))
    assert not outcome.succeeded
    assert outcome.nearest_block == wrong.colour
    assert 'first' in outcome.reason


coordinates = st.tuples(
    st.floats(0.25, 0.75), st.floats(-0.35, 0.35), st.floats(0.0, 0.5))


@settings(max_examples=150, deadline=None)
@given(
    task=st.sampled_from([t for t in TASKS if t.colour in ('red', 'blue')]),
    tool=coordinates, red=coordinates, gripper=st.floats(0, 1),
    held=st.sampled_from([None, 'red', 'blue']),
)
def test_in_any_state_the_action_is_finite_bounded_and_without_rotation(
        task, tool, red, gripper, held):
    action = expert_action(_state(tool, gripper, held, red), task)
    assert action.shape == (7,)
    assert np.isfinite(action).all()
    assert np.abs(action[:3]).max() <= 0.04
    assert not action[3:6].any()
    assert 0.0 <= action[6] <= 1.0


def test_the_step_is_proportional_to_a_short_remaining_way():
    near = expert_action(_state(tool=(0.49, 0.0, 0.2)), Task('touch', 'red'))
    nearer = expert_action(_state(tool=(0.495, 0.0, 0.2)), Task('touch', 'red'))
    assert near[0] == pytest.approx(0.005, rel=0.02)
    assert nearer[0] == pytest.approx(0.0025, rel=0.02)


def test_a_closed_gripper_far_away_opens_and_stays_above_the_block_before_picking():
    action = expert_action(_state(tool=(0.5, 0.0, 0.10), gripper=0.0), Task('pick', 'red'))
    assert action[6] == 1.0
    assert action[2] >= -1e-9


def test_a_held_block_of_another_task_is_let_go_without_moving():
    held = _state(tool=(0.5, 0.0, 0.1), gripper=0.44, held='red', red=(0.5, 0.0, 0.1))
    for task in (Task('pick', 'blue'), Task('touch', 'red'), Task('push left', 'red')):
        np.testing.assert_array_equal(expert_action(held, task), [0, 0, 0, 0, 0, 0, 1])


def test_a_tool_too_low_beside_the_block_rises_before_it_moves_sideways():
    action = expert_action(_state(tool=(0.5, -0.12, 0.03)), Task('touch', 'red'))
    assert action[2] > 0.01
    assert abs(action[1]) < 1e-6


def test_a_task_about_an_absent_block_is_refused():
    with pytest.raises(ValueError, match='there is no green block .*only: red, blue'):
        expert_action(_state(), Task('pick', 'green'))


def _seen_through_a_blurred_eye(sim, task, rng, bias):
    """Return the mean of the expert's actions over positions that are off by a centimetre."""
    state = sim.state()
    actions = []
    for _ in range(16):
        off = bias + rng.normal(0, 0.010, 3)
        blocks = dict(state.blocks)
        blocks[task.colour] = blocks[task.colour] + [off[0], off[1], 0.0]
        blurred = replace(state, blocks=blocks, tool=state.tool + [0.0, 0.0, off[2]])
        actions.append(expert_action(blurred, task))
    return np.mean(actions, axis=0)


@pytest.mark.parametrize('verb', ['touch', 'pick', 'push left', 'push right'])
def test_the_mean_expert_over_an_uncertain_position_still_does_the_task(sim, verb):
    task, succeeded = Task(verb, 'red'), 0
    for seed in range(300, 306):
        rng = np.random.default_rng(seed)
        bias = rng.normal(0, 0.006, 3)
        sim.reset(seed, task)
        outcome = run_episode(
            sim, task, lambda sim: _seen_through_a_blurred_eye(sim, task, rng, bias))  # noqa: B023
        succeeded += outcome.succeeded
    assert succeeded >= 5
