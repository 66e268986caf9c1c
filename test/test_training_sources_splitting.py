"""Training and validation never share an episode."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.training.sources.splitting import split_source


class FakeSource:
    """Records that are their own numbers; leave_out: steps whose actions are not told."""

    name = 'fake'

    def __init__(self, episodes, kind='text', leave_out=0):
        self.kind = kind
        self.episodes = np.array(episodes, np.int64)
        self._leave_out = leave_out

    def __len__(self):
        return len(self.episodes)

    def __getitem__(self, index):
        return TextRecord(question=str(index), answer=str(index))

    def actions(self):
        return np.arange(len(self) - self._leave_out)[:, None] * np.ones(7)

    def fingerprint(self):
        return str(self.episodes.tolist())


EPISODES = st.lists(st.integers(-2**63, 2**63 - 1), min_size=2).filter(
    lambda found: len(set(found)) > 1)


@given(EPISODES, st.floats(1e-6, 0.999), st.integers(0, 2**40))
def test_every_record_is_on_one_side_and_no_episode_on_both(episodes, share, seed):
    sides = split_source(FakeSource(episodes), share=share, seed=seed)
    train, validation = (
        sorted(int(side[number].question) for number in range(len(side))) for side in sides)
    assert sorted(train + validation) == list(range(len(episodes)))
    assert train and validation
    assert not set(sides.train.episodes.tolist()) & set(sides.validation.episodes.tolist())


def test_about_the_wanted_share_of_episodes_is_set_aside():
    source = FakeSource(np.repeat(np.arange(4000), 3))
    validation = split_source(source, share=0.05, seed=1).validation
    assert 150 < len(np.unique(validation.episodes)) < 250


def test_an_episode_stays_on_its_side_when_others_are_added():
    few, many = (split_source(FakeSource(range(count)), share=0.2, seed=3)
                 for count in (100, 200))
    assert few.validation.episodes.tolist() == [
        episode for episode in many.validation.episodes.tolist() if episode < 100]


def test_another_seed_sets_other_episodes_aside():
    one, other = (split_source(FakeSource(range(100)), share=0.2, seed=seed).validation
                  for seed in (0, 1))
    assert one.episodes.tolist() != other.episodes.tolist()
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize('share', [0.01, 0.99])
def test_of_two_episodes_each_side_gets_one(share):
    sides = split_source(FakeSource([4, 4, 9]), share=share, seed=0)
    assert sorted(map(len, sides)) == [1, 2]


@pytest.mark.parametrize(('episodes', 'found'), [([5, 5, 5], 1), ([], 0)])
def test_one_episode_cannot_be_split_and_the_error_says_what_to_do(episodes, found):
    with pytest.raises(SourceError, match=f'fake: .* two episodes, .* found {found}; .* to 0'):
        split_source(FakeSource(episodes), share=0.1, seed=0)


def test_share_zero_sets_nothing_aside():
    source = FakeSource([5, 5])
    train, validation = split_source(source, share=0.0, seed=0)
    assert train is source and len(validation) == 0 and len(validation.episodes) == 0


@pytest.mark.parametrize('share', [-0.1, 1.0, float('nan')])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match='from 0 to below 1'):
        split_source(FakeSource([1, 2]), share=share, seed=0)


def test_the_actions_of_a_side_are_those_of_its_steps():
    sides = split_source(FakeSource(range(20), kind='robot'), share=0.3, seed=0)
    for side in sides:
        assert side.kind == 'robot'
        assert side.actions()[:, 0].tolist() == side.episodes.tolist()


def test_where_unusable_steps_are_left_out_the_actions_are_those_of_the_whole_source():
    sides = split_source(FakeSource(range(20), kind='robot', leave_out=1), share=0.3, seed=0)
    assert len(sides.train.actions()) == 19
