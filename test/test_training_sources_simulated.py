"""The simulator's demonstrations and questions are made once and read from disk."""

from collections.abc import Callable
from pathlib import Path
import pickle
import re
from typing import Any

import numpy as np
import pytest
from robot_source_contract import RobotSourceContract

from vla_policy_node.simulation import parse_task
from vla_policy_node.training.sources import simulated_frames
from vla_policy_node.training.sources.config import open_question_source
from vla_policy_node.training.sources.config import open_robot_source
from vla_policy_node.training.sources.config import SimulatorQuestionsSection
from vla_policy_node.training.sources.config import SimulatorSection
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.simulated import SimulatorQuestionSource
from vla_policy_node.training.sources.simulated import SimulatorSource

EXPERT = {'scenes': 2, 'frames': 40, 'motion': 'expert'}
WANDER = {'first': 3, 'scenes': 2, 'frames': 2}


def _open(
    cache: Path, scenes: dict[str, Any], *, horizon: int = 1, period_s: float = 0.2,
    **changes: Any,
) -> SimulatorSource:
    section = SimulatorSection.model_validate(
        {'kind': 'simulator', 'scenes': scenes, 'size': [24, 32], **changes})
    return open_robot_source('mine', section, horizon=horizon, period_s=period_s, cache=cache)


def _questions(cache: Path, per_frame: int = 40) -> SimulatorQuestionSource:
    section = SimulatorQuestionsSection.model_validate({
        'kind': 'simulator_questions', 'scenes': WANDER, 'size': [24, 32],
        'per_frame': per_frame})
    return open_question_source('asked', section, cache=cache)


@pytest.fixture(scope='module')
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('cache')


class TestContract(RobotSourceContract):
    """Two demonstrations by the expert."""

    @pytest.fixture
    def source(self, cache: Path) -> SimulatorSource:
        return _open(cache, EXPERT, horizon=2)

    @pytest.fixture
    def reopened(self, cache: Path) -> Callable[[], SimulatorSource]:
        return lambda: _open(cache, EXPERT, horizon=2)

    @pytest.fixture
    def changed(self, cache: Path) -> Callable[[], SimulatorSource]:
        return lambda: _open(cache, WANDER)

    def test_a_demonstration_is_one_task_until_it_is_done(self, source: SimulatorSource) -> None:
        assert np.unique(source.episodes).tolist() == [0, 1]
        first = [source[int(i)] for i in np.flatnonzero(source.episodes == 0)]
        assert len({parse_task(record.instruction) for record in first}) == 1
        assert [record.terminate for record in first] == [False] * (len(first) - 2) + [True] * 2
        np.testing.assert_array_equal(first[0].actions[1], first[1].actions[0])

    def test_the_plan_says_where_the_block_of_the_task_is(self, source: SimulatorSource) -> None:
        record = source[0]
        colour = parse_task(record.instruction).colour
        assert re.fullmatch(rf'{colour} block at \d{{1,3}} \d{{1,3}}', record.plan)


def test_every_frame_is_labelled_for_every_task_that_is_possible_in_it(cache: Path) -> None:
    source = _open(cache, WANDER)
    tasks = [parse_task(source[index].instruction) for index in range(len(source))]
    for scene in (3, 4):
        of_scene = [tasks[int(index)] for index in np.flatnonzero(source.episodes == scene)]
        colours = {task.colour for task in of_scene}
        assert len(of_scene) == 2 * 4 * len(colours)    # frames, verbs, blocks
        assert len(set(of_scene)) == 4 * len(colours)
    assert not any(source[index].terminate for index in range(len(source)))
    assert np.unique(source.episodes).tolist() == [3, 4]


def test_wordings_differ_between_records(cache: Path) -> None:
    source = _open(cache, WANDER)
    said = {source[index].instruction for index in range(len(source))}
    assert any(text != parse_task(text).instruction for text in said)


def test_frames_are_simulated_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _open(cache, WANDER)[0]

    def refuse(*_: object) -> None:
        raise AssertionError('expected the frames to be read')

    monkeypatch.setattr(simulated_frames, '_simulate', refuse)
    np.testing.assert_array_equal(_open(cache, WANDER)[0].images['primary'],
                                  wanted.images['primary'])
    assert len(_questions(cache)) == 160


def test_an_interrupted_simulation_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated_frames, '_simulate', interrupt)
    with pytest.raises(KeyboardInterrupt):
        _open(tmp_path, WANDER)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_one_scene_do_not_depend_on_the_block_they_are_made_in(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulated_frames, '_BLOCK_FRAMES', 2)
    np.testing.assert_array_equal(
        _open(tmp_path, WANDER).actions(), _open(cache, WANDER).actions())


def test_a_longer_horizon_needs_demonstrations(cache: Path) -> None:
    with pytest.raises(SourceError, match='found 4; set scenes.motion to expert'):
        _open(cache, WANDER, horizon=4)


def test_another_period_is_refused(cache: Path) -> None:
    with pytest.raises(SourceError, match='expected a period of 0.2 s'):
        _open(cache, WANDER, period_s=0.1)


def test_too_few_frames_to_be_done_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='done within 1 frames, found none of 1 scenes done'):
        _open(tmp_path, {'scenes': 1, 'frames': 1, 'motion': 'expert'})


def test_questions_are_about_the_same_frames_and_points_are_two_numbers(cache: Path) -> None:
    source = _questions(cache)
    assert source.kind == 'text'
    assert source.episodes.tolist() == [3] * 80 + [4] * 80
    records = [source[index] for index in range(160)]
    np.testing.assert_array_equal(
        records[0].images['primary'], _open(cache, WANDER)[0].images['primary'])
    answers = {record.question: record.answer for record in records}
    assert re.fullmatch(r'\d{1,3} \d{1,3}', answers['where is the gripper'])
    assert answers['is the gripper open'] in ('yes', 'no')
    assert all(record.answer for record in records)


def test_questions_are_the_same_in_every_process(cache: Path) -> None:
    source = _questions(cache)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[i].question for i in range(20)] == [source[i].question for i in range(20)]
    assert len(pickle.dumps(source)) < 2000
    assert copy.fingerprint() == source.fingerprint()
    assert _questions(cache, per_frame=2).fingerprint() != source.fingerprint()
