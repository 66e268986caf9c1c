"""Offline replay shows every chosen frame to the policy and puts the answers beside the deeds."""

from pathlib import Path
import threading
import time

import bag_folders as bags
from bag_folders import SECOND
from bag_folders import START
import numpy as np
import pytest
from replay_fakes import BLIND
from replay_fakes import BrightnessPolicy
from replay_fakes import PERIOD_S
from replay_fakes import write_bag

from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_tokenizer import LevelTokens
from vla_policy_node.action_tokenizer import OverwrittenTokens
from vla_policy_node.evaluation.replay.bins import ActionBins
from vla_policy_node.evaluation.replay.offline import run_offline
from vla_policy_node.evaluation.replay.read_ahead import ReadAhead
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recordings import RecordingError

CONFIG = RecordedConfig.model_validate({
    'cameras': {'primary': bags.CAMERA}, 'actions': {'kind': 'chunk'},
    'instruction': {'text': 'pick'}, 'frames': {'select': 'chunks'}})


def replay(*paths: Path, policy: BrightnessPolicy | None = None, **options) -> ReplayRun:
    found = read_bags(paths, CONFIG, period_s=PERIOD_S)
    return run_offline(policy or BrightnessPolicy(), found, name='fake', **options)


def test_every_frame_is_a_row_with_deed_and_answer(tmp_path: Path) -> None:
    paths = write_bag(tmp_path / 'a', [10, 20]), write_bag(tmp_path / 'b', [30])
    replayed = replay(*paths).replayed
    assert replayed.episode.tolist() == [0, 0, 1]
    assert ((replayed.stamp_ns - START) / SECOND).tolist() == [0.0, 0.2, 0.0]
    assert replayed.recorded[:, 0, 0].tolist() == [0.01, 0.02, 0.03]
    assert replayed.predicted[:, 0, 0] == pytest.approx([0.01, 0.02, 0.03], abs=5e-4)
    assert (replayed.recorded_bins == replayed.predicted_bins).all()
    assert replayed.recorded_bins[0, 0].tolist() == [140, 127, 127, 127, 127, 127, 255]
    assert np.isnan(replayed.previous[[0, 2]]).all()
    assert replayed.previous[1, 0] == 0.01
    assert (replayed.confidence == 0.5).all()
    assert replayed.timing_ms['preprocess'].tolist() == [1.0, 1.0, 1.0]
    assert (replayed.latency_ms > 0.0).all()
    assert replayed.scale == pytest.approx([0.2] * 6 + [1.0])
    assert replayed.mean_action.tolist() == [0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]


def test_the_policy_sees_each_picture_and_the_words_the_first_one_twice(tmp_path: Path) -> None:
    policy = BrightnessPolicy()
    counts = []
    replay(write_bag(tmp_path / 'a', [10, 20]), policy=policy, on_frame=counts.append)
    assert [int(each.images['primary'][0, 0, 0]) for each in policy.seen] == [10, 10, 20]
    assert {each.instruction for each in policy.seen} == {'pick'}
    assert counts == [1, 2]


def test_a_failed_decoding_is_a_row_without_an_answer_and_counted(tmp_path: Path) -> None:
    run = replay(write_bag(tmp_path / 'a', [BLIND, 20, BLIND]))
    assert np.isnan(run.replayed.predicted[[0, 2]]).all()
    assert run.replayed.predicted_bins[:, 0, 0].tolist() == [-1, 153, -1]
    assert np.isnan(run.replayed.timing_ms['total'][[0, 2]]).all()
    assert run.failures == {'it is too bright': 2}
    assert [answer is None for answer in run.answers] == [True, False, True]


def test_steps_behind_the_end_of_an_episode_have_no_deed(tmp_path: Path) -> None:
    replayed = replay(write_bag(tmp_path / 'a', [10, 20, 30]),
                      policy=BrightnessPolicy(horizon=2)).replayed
    assert replayed.recorded[:2, 1, 0].tolist() == [0.02, 0.03]
    assert np.isnan(replayed.recorded[2, 1]).all()
    assert replayed.recorded_bins[2, 1].tolist() == [-1] * 7


def test_the_same_bag_twice_gives_the_same_tokens(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'a', list(range(40)))
    first, second = (replay(path) for _ in range(2))
    assert first.replayed.predicted.tobytes() == second.replayed.predicted.tobytes()
    assert all((a.all_token_ids == b.all_token_ids).all()
               for a, b in zip(first.answers, second.answers, strict=True))


def test_without_a_mean_in_the_statistics_that_of_the_recording_stands_in(tmp_path: Path) -> None:
    policy = BrightnessPolicy()
    policy.action_space.stats.extra.clear()
    mean = replay(write_bag(tmp_path / 'a', [10, 20]), policy=policy).replayed.mean_action
    assert mean == pytest.approx([0.015, 0, 0, 0, 0, 0, 1])


def test_pictures_that_are_all_broken_are_an_error(tmp_path: Path) -> None:
    _, when, picture = bags.image(0.0, 1)
    picture.encoding = 'unheard of'
    path = bags.write(tmp_path / 'a', [(bags.CAMERA, when, picture), bags.chunk(0.0, [[0] * 7])])
    with pytest.raises(RecordingError, match='found none that can be decoded: picture of /camera'):
        replay(path)


def test_an_error_of_the_policy_ends_the_reading_too(tmp_path: Path) -> None:
    class Broken(BrightnessPolicy):
        def infer(self, observation):
            raise ValueError('no camera of that name')

    path = write_bag(tmp_path / 'a', list(range(40)))
    with pytest.raises(ValueError, match='no camera'):
        replay(path, policy=Broken())
    assert 'read-ahead' not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize('tokenizer', [
    OverwrittenTokens(vocab_size=32000), LevelTokens(first_id=0)])
def test_bins_of_actions_are_those_that_the_tokenizer_writes(tokenizer) -> None:
    policy = BrightnessPolicy(rotation='fixed_axis_rpy', gripper='open_is_zero')
    space = policy.action_space
    rng = np.random.default_rng(0)
    physical = rng.uniform(-0.1, 0.1, (200, 7))
    physical[:, 6] = rng.uniform(0, 1, 200)
    bins = ActionBins(space, tokenizer).of_actions(space.to_canonical(physical))
    wanted = [tokenizer.decode(tokenizer.encode(space.stats.normalize(row[None]))).bins[0]
              for row in physical]
    assert (np.abs(bins - wanted) <= 1).all()           # rounding at the edges of bins
    assert (bins == wanted).mean() > 0.99


def test_canonical_actions_go_back_to_the_conventions_of_the_checkpoint() -> None:
    space = BrightnessPolicy(rotation='fixed_axis_rpy', gripper='open_is_zero').action_space
    physical = np.array([[0.01, 0.02, 0.03, 0.4, -0.5, 2.6, 0.25]])
    assert from_canonical(space.to_canonical(physical), space) == pytest.approx(physical)


def test_reading_ahead_keeps_the_order_and_only_a_few_items() -> None:
    taken = []

    def items():
        for n in range(20):
            taken.append(n)
            yield n

    with ReadAhead(items(), ahead=3) as ahead:
        time.sleep(0.2)
        assert len(taken) <= 5
        assert list(ahead) == list(range(20))
    assert ahead.waited_s >= 0.0


def test_an_error_while_reading_ahead_comes_in_its_place() -> None:
    def items():
        yield 1
        raise RecordingError('cut off')

    found = []
    with pytest.raises(RecordingError, match='cut off'), ReadAhead(items(), ahead=3) as ahead:
        found.extend(ahead)
    assert found == [1]
    with ReadAhead(items(), ahead=3) as ahead:
        assert next(iter(ahead)) == 1
