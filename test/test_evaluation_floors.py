"""The floors run in a process of their own and come back in order."""

import pytest

from vla_policy_node.evaluation import floors
from vla_policy_node.evaluation.episodes import EpisodePlan

PLANS = (EpisodePlan(seed=1, task='touch red'), EpisodePlan(seed=2, task='push left blue'))


def _job(tmp_path, **changes):
    settings = {'plans': PLANS, 'max_duration_s': 8.0, 'checkpoint': tmp_path / 'none', **changes}
    return floors.Job(**settings)


@pytest.mark.integration
def test_the_expert_succeeds_where_standing_still_does_not(tmp_path):
    pytest.importorskip('vla_policy_node.simulation')
    seen = []
    outcomes = floors.run_in_process(
        _job(tmp_path), ('expert', 'no_op'), tmp_path / 'floors.log', seen.append)
    assert outcomes == {'expert': [True, True], 'no_op': [False, False]}
    assert seen == ['expert', 'expert', 'no_op', 'no_op']


@pytest.mark.integration
def test_floors_that_cannot_run_say_why(tmp_path):
    pytest.importorskip('vla_policy_node.simulation')
    with pytest.raises(floors.FloorError, match='exit code 1: .*none'):
        floors.run_in_process(
            _job(tmp_path), ('wrong_instruction',), tmp_path / 'floors.log', lambda _: None)


def test_the_wrong_colour_is_another_block_on_the_table():
    assert floors.wrong_colour('red', ('red', 'blue'), seed=7) == 'blue'
    assert {floors.wrong_colour('red', ('blue', 'red', 'green'), seed) for seed in range(4)} == {
        'blue', 'green'}


def test_a_table_with_one_block_has_no_wrong_colour():
    with pytest.raises(ValueError, match='expected a second block'):
        floors.wrong_colour('red', ('red',), seed=0)
