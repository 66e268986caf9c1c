"""LeRobot data sets on disk become records: right picture, right action, right words."""

from collections.abc import Callable
import contextlib
import json
from pathlib import Path
from typing import Any

import lerobot_folders as folders
from lerobot_folders import ACTIONS
from lerobot_folders import CAMERA
import numpy as np
import pytest
from robot_source_contract import RobotSourceContract

from vla_policy_node.training.sources.config import LeRobotSection
from vla_policy_node.training.sources.config import open_robot_source
from vla_policy_node.training.sources.lerobot import LeRobotSource
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError

DELTAS = {'mode': 'delta', 'translation': {'indices': [0, 1, 2]},
          'rotation': {'indices': [3, 4, 5]}, 'gripper': {'index': 6}}


def _section(root: Path, **changes: Any) -> LeRobotSection:
    return LeRobotSection.model_validate({
        'kind': 'lerobot', 'path': root, 'cameras': {'primary': CAMERA}, 'actions': DELTAS,
        **changes})


def _open(root: Path, *, horizon: int = 2, period_s: float = 0.1, **changes: Any) -> LeRobotSource:
    return open_robot_source('mine', _section(root, **changes), horizon=horizon,
                             period_s=period_s, cache=root.parent / 'cache')


WRITERS: dict[str, Callable[[Path], Path]] = {
    'v2.1 video': folders.write_v21,
    'v2.1 pictures': lambda root: folders.write_v21(root, pictures=True),
    'v3.0 video': folders.write_v30,
    'v3.0 AV1 video': lambda root: folders.write_v30(root, codec='libsvtav1'),
    'v3.0 pictures': lambda root: folders.write_v30(root, pictures=True),
}


@pytest.fixture(scope='module', params=WRITERS)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp('lerobot') / 'drawer')


class TestContract(RobotSourceContract):
    """Both versions, with videos and with pictures in the tables."""

    @pytest.fixture
    def source(self, root: Path) -> LeRobotSource:
        return _open(root)

    @pytest.fixture
    def reopened(self, root: Path) -> Callable[[], LeRobotSource]:
        return lambda: _open(root)

    @pytest.fixture
    def changed(self, tmp_path: Path) -> Callable[[], LeRobotSource]:
        return lambda: _open(folders.write_v21(
            tmp_path / 'drawer', tasks=('open the drawer', 'shut the drawer')))

    def test_every_step_has_its_own_picture(self, source: LeRobotSource) -> None:
        order = (6, 0, 5, 1, 4, 2, 3)   # never in the order of the video
        greys = {index: source[index].images['primary'][24, 8].mean() for index in order}
        wanted = [grey for shades in folders.SHADES for grey in shades]
        assert [greys[index] for index in range(7)] == pytest.approx(wanted, abs=4)

    def test_every_step_has_the_words_of_its_episode(self, source: LeRobotSource) -> None:
        assert [source[index].instruction for index in (0, 3, 4, 6)] == [
            'open the drawer', 'open the drawer', 'close the drawer', 'close the drawer']
        assert source.episodes.tolist() == [0, 0, 0, 0, 1, 1, 1]

    def test_actions_are_those_of_the_data_set(self, source: LeRobotSource) -> None:
        np.testing.assert_allclose(source.actions(), ACTIONS, atol=1e-7)
        np.testing.assert_allclose(source[1].actions, ACTIONS[1:3], atol=1e-7)
        assert not source[1].terminate

    def test_behind_the_end_of_an_episode_the_robot_stands_still(
        self, source: LeRobotSource,
    ) -> None:
        np.testing.assert_allclose(source[3].actions, [
            ACTIONS[3], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], atol=1e-7)
        assert source[3].terminate
        assert source[2].terminate


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    return folders.write_v21(tmp_path / 'drawer', pictures=True)


def test_a_period_of_two_steps_takes_both_of_them(v21: Path) -> None:
    record = _open(v21, period_s=0.2)[0]
    np.testing.assert_allclose(record.actions, [
        [0.03, 0.0, -0.02, 0.0, 0.0, 0.2, 0.0], [0.07, 0.0, -0.02, 0.0, 0.0, 0.2, 1.0]], atol=1e-7)
    assert record.terminate


def test_a_period_that_is_no_number_of_steps_names_those_that_are(v21: Path) -> None:
    with pytest.raises(SourceError, match=r'set action.period_s to .* \(0.1, 0.2, 0.3, ...\)'):
        _open(v21, period_s=0.15)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='mine: expected .*nowhere/meta/info.json, found no such '
                                          'folder; give the folder that holds meta/'):
        _open(tmp_path / 'nowhere')


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='found an empty folder'):
        _open(tmp_path)


def test_an_unknown_version_is_refused(v21: Path) -> None:
    path = v21 / 'meta/info.json'
    path.write_text(path.read_text().replace('v2.1', 'v1.6'))
    with pytest.raises(SourceError, match="expected codebase_version v2.0, v2.1, v3.0, found 'v1"):
        _open(v21)


def test_an_unknown_camera_lists_the_known_ones(v21: Path) -> None:
    with pytest.raises(SourceError, match="found 'wrist'; its pictures are: observation.images"):
        _open(v21, cameras={'primary': 'wrist'})


def test_an_unknown_action_feature_lists_the_known_ones(v21: Path) -> None:
    actions = {'mode': 'delta', 'translation': {'feature': 'acton', 'indices': [0, 1, 2]}}
    with pytest.raises(SourceError, match=r"'acton' .* found no such feature; .*: action \(7\), "):
        _open(v21, actions=actions)


def test_an_index_beyond_the_width_of_the_actions_is_refused(v21: Path) -> None:
    actions = {'mode': 'delta', 'translation': {'indices': [0, 1, 7]}}
    with pytest.raises(SourceError, match="'action' .* at least 8 numbers, found 7"):
        _open(v21, actions=actions)


def test_a_row_of_another_width_is_named(v21: Path) -> None:
    file = v21 / folders.V2_DATA.format(1)
    folders.write_table(file, {
        'action': [[0.0] * 7, [0.0] * 6], 'frame_index': [0, 1], 'episode_index': [1, 1],
        'task_index': [1, 1]})
    with pytest.raises(SourceError, match='000001.parquet: row 1: expected 7 numbers in action, '
                                          'found 6'):
        _open(v21)


def test_a_truncated_parquet_file_is_named(v21: Path) -> None:
    file = v21 / folders.V2_DATA.format(1)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(SourceError, match='000001.parquet: expected a complete file'):
        _open(v21)


def test_an_episode_without_its_file_is_named(v21: Path) -> None:
    (v21 / folders.V2_DATA.format(1)).unlink()
    with pytest.raises(SourceError, match='found episode 1 in meta/ but not in data/'):
        _open(v21)


def test_a_step_that_is_not_a_number_is_skipped_not_the_source(tmp_path: Path) -> None:
    actions = ACTIONS.copy()
    actions[2, 1] = np.nan
    source = _open(folders.write_v21(tmp_path / 'drawer', actions=actions, pictures=True))
    assert source.actions().shape == (6, 7)
    assert source[0].instruction == 'open the drawer'
    with pytest.raises(RecordError, match=r'episode_000000.parquet, episode 0, frame 1: expected '
                                          'finite actions, found nan in y of action 1'):
        source[1]


def test_a_source_without_any_usable_action_is_refused(tmp_path: Path) -> None:
    root = folders.write_v21(tmp_path / 'drawer', actions=np.full((7, 7), np.nan), pictures=True)
    with pytest.raises(SourceError, match='expected finite actions, found none in 7 steps'):
        _open(root)


def test_an_episode_without_words_is_refused_record_by_record(tmp_path: Path) -> None:
    root = folders.write_v21(tmp_path / 'drawer', tasks=('open the drawer', ''), pictures=True)
    source = _open(root)
    assert source[0].instruction == 'open the drawer'
    with pytest.raises(RecordError, match='episode 1, frame 0: .*set `instruction`'):
        source[4]
    assert _open(root, instruction='close it')[4].instruction == 'close it'


def test_a_picture_that_cannot_be_decoded_is_named(v21: Path) -> None:
    file = v21 / folders.V2_DATA.format(0)
    folders.write_table(file, {
        'action': [[0.0] * 7] * 2, 'frame_index': [0, 1], 'episode_index': [0, 0],
        'task_index': [0, 0], CAMERA: [{'bytes': b'no picture', 'path': 'a.png'}] * 2})
    with pytest.raises(RecordError, match='episode_000000.parquet, episode 0, frame 1: '
                                          'observation.images.front: expected JPEG or PNG'):
        _open(v21)[1]


def test_a_truncated_video_spoils_its_records_only(tmp_path: Path) -> None:
    root = folders.write_v21(tmp_path / 'drawer')
    video = root / folders.V2_VIDEO.format(0)
    video.write_bytes(video.read_bytes()[:-300])
    source = _open(root)
    assert source[4].images['primary'].shape == (48, 64, 3)
    with pytest.raises(RecordError, match='episode 0, frame 2: .*episode_000000.mp4: expected'):
        source[2]


def test_a_video_shorter_than_its_episode_says_where_it_ends(tmp_path: Path) -> None:
    root = folders.write_v21(tmp_path / 'drawer')
    folders.write_video(root / folders.V2_VIDEO.format(0), [1, 2])
    with pytest.raises(RecordError, match=r'a frame at 0.300 s, found the nearest at 0.100 s'):
        _open(root)[3]


def test_missing_videos_are_counted_when_opening(tmp_path: Path) -> None:
    root = folders.write_v21(tmp_path / 'drawer')
    (root / folders.V2_VIDEO.format(1)).unlink()
    with pytest.raises(SourceError, match=r'expected 2 videos .* found 1; download videos'):
        _open(root)


def test_a_depth_map_is_no_camera(v21: Path) -> None:
    path = v21 / 'meta/info.json'
    info = json.loads(path.read_text())
    info['features'][CAMERA]['info'] = {'video.is_depth_map': True}
    path.write_text(json.dumps(info))
    with pytest.raises(SourceError, match='its pictures are: none'):
        _open(v21)


@pytest.mark.parametrize('write', [
    lambda root: folders.write_v21(root), lambda root: folders.write_v30(root, pictures=True)])
def test_damage_of_any_file_is_an_error_of_its_own_kind(
    tmp_path: Path, write: Callable[[Path], Path],
) -> None:
    root, rng = write(tmp_path / 'drawer'), np.random.default_rng(0)
    files = sorted(path for path in root.rglob('*') if path.is_file())
    for trial in range(30):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        damaged = bytearray(whole[:rng.integers(len(whole))] if trial % 2 else whole)
        for place in rng.integers(max(1, len(damaged)), size=0 if trial % 2 else 3):
            damaged[place] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged)
        with contextlib.suppress(SourceError):
            source = _open(root)
            for index in range(len(source)):
                with contextlib.suppress(RecordError):
                    source[index]
        file.write_bytes(whole)
