"""Success rates with intervals, percentiles, and the plan of a run."""

import pytest

from vla_policy_node.evaluation.episodes import outcomes_by_verb
from vla_policy_node.evaluation.episodes import plan_episodes
from vla_policy_node.evaluation.episodes import tasks_of
from vla_policy_node.evaluation.statistics import percentile
from vla_policy_node.evaluation.statistics import percentiles
from vla_policy_node.evaluation.statistics import success_entry
from vla_policy_node.statistics import percent_text
from vla_policy_node.statistics import wilson_interval


@pytest.mark.parametrize(('successes', 'trials', 'low', 'high'), [
    (5, 10, 0.236593, 0.763407),
    (0, 10, 0.0, 0.277533),
    (10, 10, 0.722467, 1.0),
    (81, 263, 0.255289, 0.366212),
    (0, 0, 0.0, 1.0),
])
def test_the_wilson_interval_has_the_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(('successes', 'trials'), [(3, 2), (-1, 2), (1, 0)])
def test_more_successes_than_trials_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f'found {successes} of {trials}'):
        wilson_interval(successes, trials)


def test_percentiles_interpolate_between_the_sorted_values():
    assert percentile([40.0, 10.0, 30.0, 20.0], 50) == pytest.approx(25.0)
    assert percentile([7.0], 99) == 7.0
    assert percentiles(list(range(101))) == {'p50': 50, 'p95': 95, 'p99': 99}


def test_percentiles_of_nothing_are_unknown_rather_than_zero():
    assert percentiles([]) == {'p50': None, 'p95': None, 'p99': None}


def test_a_success_entry_says_rate_and_interval():
    entry = success_entry([True, False, True, True])
    assert (entry['success'], entry['episodes'], entry['rate']) == (3, 4, 0.75)
    assert entry['interval_95'] == pytest.approx([0.300642, 0.954413], abs=1e-5)


def test_episodes_are_balanced_over_the_verbs_and_the_same_for_a_seed():
    plans = plan_episodes(12, seed=3)
    grouped = outcomes_by_verb(plans, [True] * 12)
    assert {verb: len(values) for verb, values in grouped.items()} == {
        'touch': 3, 'pick': 3, 'push left': 3, 'push right': 3}
    assert plans == plan_episodes(12, seed=3)
    assert len({plan.seed for plan in plans}) == 12


def test_episodes_use_scenes_that_training_cannot_draw():
    assert all(plan.seed >= 2 ** 31 for plan in plan_episodes(4, seed=0))


@pytest.mark.parametrize(('selection', 'count'), [('', 16), ('push left', 4), ('pick red', 1)])
def test_a_selection_stands_for_all_tasks_a_verb_or_one_task(selection, count):
    assert len(tasks_of(selection)) == count


def test_an_unknown_task_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'pick red'.*'push left'.*found 'fly'"):
        plan_episodes(1, 0, 'fly')


def test_zero_episodes_are_refused():
    with pytest.raises(ValueError, match='at least 1 episode, found 0'):
        plan_episodes(0, 0)


@pytest.mark.parametrize(('share', 'text'), [
    (0.0, '0'), (1.0, '100'), (0.584, '58'), (None, '-'),
    (399 / 400, '99.8'), (1 / 400, '0.2'), (0.9996, '99.96'), (2 / 3, '67')])
def test_a_share_that_is_neither_none_nor_all_is_not_rounded_to_it(share, text):
    assert percent_text(share) == text
