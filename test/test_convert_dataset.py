"""What is written is LeRobot 3.0 to the letter, and our own source reads it back."""

from collections.abc import Callable
import json
import os
from pathlib import Path

import av
from convert_fakes import actions
from convert_fakes import picture
from convert_fakes import psnr
import numpy as np
import pyarrow.parquet as pq
import pytest
from robot_source_contract import RobotSourceContract

from vla_policy_node.training.convert import dataset
from vla_policy_node.training.convert import mp4
from vla_policy_node.training.convert.dataset import LeRobotWriter
from vla_policy_node.training.convert.dataset import MisfitError
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.training.sources.config import LeRobotSection
from vla_policy_node.training.sources.config import open_robot_source
from vla_policy_node.training.sources.lerobot import LeRobotSource

CAMERA = 'observation.images.primary'
EPISODES = (('pick up the red block', 5), ('pick up the blue block', 3),
            ('pick up the red block', 4))
ACTIONS = actions(12)
FPS = 5


def write(root: Path, size: tuple[int, int] = (48, 64), **limits_mb: float) -> Path:
    """Write three episodes whose pictures are numbered through."""
    writer = LeRobotWriter(root, fps=FPS, **limits_mb)
    number = 0
    for instruction, length in EPISODES:
        for _ in range(length):
            writer.add({'primary': picture(number, size)}, ACTIONS[number], expected=length)
            number += 1
        writer.end_episode(instruction)
    writer.finish({'note': 'from a test'})
    return root


def open_source(root: Path, horizon: int = 2) -> LeRobotSource:
    return open_robot_source('mine', LeRobotSection.model_validate({
        'kind': 'lerobot', 'path': root, 'cameras': {'primary': CAMERA},
        'actions': {'mode': 'delta', 'translation': {'indices': [0, 1, 2]},
                    'rotation': {'indices': [3, 4, 5]}, 'gripper': {'index': 6}}}),
        horizon=horizon, period_s=1.0 / FPS, cache=root.parent / 'cache')


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp('convert') / 'own')


@pytest.fixture(scope='module')
def info(root: Path) -> dict:
    return json.loads((root / 'meta/info.json').read_text())


@pytest.fixture(scope='module')
def rows(root: Path) -> list[dict]:
    return pq.read_table(root / 'meta/episodes/chunk-000/file-000.parquet').to_pylist()


class TestContract(RobotSourceContract):
    """The data set is a source like any other."""

    @pytest.fixture
    def source(self, root: Path) -> LeRobotSource:
        return open_source(root)

    @pytest.fixture
    def reopened(self, root: Path) -> Callable[[], LeRobotSource]:
        return lambda: open_source(root)

    @pytest.fixture
    def changed(self, tmp_path: Path) -> Callable[[], LeRobotSource]:
        def change() -> LeRobotSource:
            root = write(tmp_path / 'changed', size=(64, 48))
            return open_source(root)
        return change


def test_actions_come_back_to_single_precision(root):
    source = open_source(root)
    np.testing.assert_allclose(source.actions(), ACTIONS.astype(np.float32), atol=1e-15)


def test_every_step_has_its_own_picture_nearly_as_it_was(root):
    source = open_source(root)
    for number in range(len(source)):
        seen = source[number].images['primary']
        ratios = [psnr(seen, picture(other)) for other in range(12)]
        assert int(np.argmax(ratios)) == number
        assert ratios[number] > 36.0    # at least 38.3 dB were measured


def test_words_and_ends_of_episodes_come_back(root):
    source = open_source(root)
    assert source.episodes.tolist() == [0] * 5 + [1] * 3 + [2] * 4
    assert [source[place].instruction for place in (4, 5, 8)] == [
        'pick up the red block', 'pick up the blue block', 'pick up the red block']
    assert [source[place].terminate for place in (2, 3, 4)] == [False, True, True]


def test_pictures_with_odd_sides_keep_their_size(tmp_path):
    source = open_source(write(tmp_path / 'odd', size=(49, 65)))
    seen = source[7].images['primary']
    assert seen.shape == (49, 65, 3)
    assert psnr(seen, picture(7, (49, 65))) > 36.0


def test_info_describes_features_with_names_and_units(info):
    assert info['features']['action'] == {
        'dtype': 'float32', 'shape': [7], 'names': ['x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper'],
        'units': ['m', 'm', 'm', 'rad', 'rad', 'rad', '0 closed to 1 open']}
    assert info['features'][CAMERA] == {
        'dtype': 'video', 'shape': [48, 64, 3], 'names': ['height', 'width', 'channels'],
        'info': {'video.height': 48, 'video.width': 64, 'video.channels': 3, 'video.fps': 5,
                 'video.codec': 'h264', 'video.pix_fmt': 'yuv420p',
                 'video.is_depth_map': False, 'has_audio': False}}
    assert [info[key] for key in (
        'codebase_version', 'fps', 'total_episodes', 'total_frames', 'total_tasks', 'splits',
        'chunks_size', 'data_files_size_in_mb', 'video_files_size_in_mb')] == [
        'v3.0', 5, 3, 12, 2, {'train': '0:3'}, 1000, 100, 200]


def test_the_columns_of_the_steps_are_those_of_lerobot(root, info):
    table = pq.read_table(root / 'data/chunk-000/file-000.parquet')
    assert {name: str(kind) for name, kind in zip(
        table.column_names, table.schema.types, strict=True)} == {
        'action': 'fixed_size_list<element: float>[7]', 'timestamp': 'float',
        'frame_index': 'int64', 'episode_index': 'int64', 'index': 'int64', 'task_index': 'int64'}
    assert set(table.column_names) | {CAMERA} == set(info['features'])
    assert table['frame_index'].to_pylist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]
    assert table['index'].to_pylist() == list(range(12))
    assert table['task_index'].to_pylist() == [0] * 5 + [1] * 3 + [0] * 4
    np.testing.assert_allclose(table['timestamp'].to_numpy()[:6], [0, 0.2, 0.4, 0.6, 0.8, 0])


def test_rows_of_episodes_say_where_steps_and_videos_are(rows):
    places = [[row[key] for key in (
        'episode_index', 'tasks', 'length', 'dataset_from_index', 'dataset_to_index',
        'data/chunk_index', 'data/file_index', 'meta/episodes/chunk_index',
        'meta/episodes/file_index')] for row in rows]
    assert places == [[0, ['pick up the red block'], 5, 0, 5, 0, 0, 0, 0],
                      [1, ['pick up the blue block'], 3, 5, 8, 0, 0, 0, 0],
                      [2, ['pick up the red block'], 4, 8, 12, 0, 0, 0, 0]]
    times = [(row[f'videos/{CAMERA}/from_timestamp'], row[f'videos/{CAMERA}/to_timestamp'])
             for row in rows]
    np.testing.assert_allclose(times, [(0, 1), (1, 1.6), (1.6, 2.4)])


def test_tasks_are_a_pandas_frame_with_the_words_as_index(root):
    table = pq.read_table(root / 'meta/tasks.parquet')
    frame = json.loads(table.schema.metadata[b'pandas'])
    assert frame['index_columns'] == ['task']
    assert table.to_pylist() == [{'task_index': 0, 'task': 'pick up the red block'},
                                 {'task_index': 1, 'task': 'pick up the blue block'}]


def test_statistics_are_those_of_all_steps(root):
    stats = json.loads((root / 'meta/stats.json').read_text())
    single = ACTIONS.astype(np.float32)
    for name, expected in {'min': single.min(0), 'max': single.max(0), 'mean': single.mean(0),
                           'std': single.std(0), 'q01': np.quantile(single, 0.01, axis=0),
                           'q99': np.quantile(single, 0.99, axis=0)}.items():
        np.testing.assert_allclose(stats['action'][name], expected, atol=1e-6)
    assert stats['action']['count'] == [12]
    assert (stats['index']['min'], stats['index']['max']) == ([0.0], [11.0])
    np.testing.assert_allclose(stats['timestamp']['max'], [0.8])


def test_statistics_of_pictures_are_shares_of_white_per_colour(root, rows):
    stats = json.loads((root / 'meta/stats.json').read_text())[CAMERA]
    colours = np.concatenate([picture(number).reshape(-1, 3) for number in range(12)]) / 255.0
    assert np.shape(stats['mean']) == (3, 1, 1)
    for name, expected in {'min': colours.min(0), 'max': colours.max(0), 'mean': colours.mean(0),
                           'std': colours.std(0)}.items():
        np.testing.assert_allclose(np.ravel(stats[name]), expected, atol=1e-6)
    np.testing.assert_allclose(np.ravel(stats['q50']), np.quantile(
        colours, 0.5, axis=0, method='inverted_cdf'), atol=1e-6)
    assert stats['count'] == [12]
    assert [row[f'stats/{CAMERA}/count'] for row in rows] == [[5], [3], [4]]


def test_rows_of_episodes_hold_their_own_statistics(rows):
    np.testing.assert_allclose(rows[1]['stats/action/mean'],
                               ACTIONS[5:8].astype(np.float32).mean(0), atol=1e-6)
    assert rows[1]['stats/index/min'] == [5.0]
    assert np.shape(rows[1][f'stats/{CAMERA}/q99']) == (3, 1, 1)


def test_every_second_frame_is_a_keyframe_and_none_waits_for_a_later_one(root):
    with av.open(str(root / f'videos/{CAMERA}/chunk-000/file-000.mp4')) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [packet.is_keyframe for packet in packets] == [True, False] * 6
        assert all(packet.pts == packet.dts for packet in packets)
        assert [float(packet.pts * packet.time_base) for packet in packets] == [
            number / 5 for number in range(12)]


def test_files_end_where_an_episode_would_make_them_too_large(tmp_path):
    root = tmp_path / 'rolled'
    writer = LeRobotWriter(root, fps=FPS, video_limit_mb=0.01, data_limit_mb=0.002)
    for episode in range(3):    # longer than what an encoder keeps back
        for number in range(60):
            writer.add({'primary': picture(episode + number)}, ACTIONS[episode], expected=60)
        writer.end_episode('wave')
    writer.finish({})
    for pattern in (f'videos/{CAMERA}/chunk-000/file-00?.mp4', 'data/chunk-000/file-00?.parquet'):
        assert len(list(root.glob(pattern))) == 3
    source = open_source(root)
    assert psnr(source[125].images['primary'], picture(7)) > 36.0
    np.testing.assert_allclose(source.actions()[125], ACTIONS[2].astype(np.float32), atol=1e-15)


def test_a_thousand_files_fill_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr('vla_policy_node.training.convert.rolled_files.CHUNK_FILES', 2)
    root = write(tmp_path / 'rolled', data_limit_mb=1e-4)
    assert sorted(str(path.relative_to(root)) for path in root.glob('data/*/*')) == [
        'data/chunk-000/file-000.parquet', 'data/chunk-000/file-001.parquet',
        'data/chunk-001/file-000.parquet']


def test_many_episodes_are_written_in_several_batches_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, '_ROWS', 2)
    root = write(tmp_path / 'batches')
    rows = pq.ParquetFile(root / 'meta/episodes/chunk-000/file-000.parquet')
    assert rows.metadata.num_row_groups == 2
    assert open_source(root).episodes.max() == 2


def test_without_an_h264_encoder_videos_are_av1(tmp_path, monkeypatch):
    monkeypatch.setattr(mp4.av, 'codecs_available', {'libsvtav1'})
    root = write(tmp_path / 'av1')
    info = json.loads((root / 'meta/info.json').read_text())
    assert info['features'][CAMERA]['info']['video.codec'] == 'av1'
    assert psnr(open_source(root)[7].images['primary'], picture(7)) > 36.0


def test_encoding_leaves_no_thread_at_a_real_time_priority(tmp_path):
    file = mp4.Mp4File(tmp_path / 'a.mp4', mp4.ENCODERS[1], fps=5, size=(48, 64))
    file.add(picture(0))
    threads = [int(name) for name in os.listdir('/proc/self/task')]
    assert len(threads) > 1
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}
    file.close()


def test_without_any_encoder_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mp4.av, 'codecs_available', set())
    with pytest.raises(ConvertError, match='libx264, libsvtav1, found none .* install PyAV'):
        LeRobotWriter(tmp_path, fps=5)


@pytest.mark.parametrize(('images', 'found'), [
    ({'primary': picture(0, (64, 48))}, 'primary 64x48'),
    ({'wrist': picture(0)}, 'wrist 48x64'),
    ({}, 'no camera'),
])
def test_other_cameras_or_sizes_than_the_first_are_refused(tmp_path, images, found):
    writer = LeRobotWriter(tmp_path, fps=5)
    writer.add({'primary': picture(0)}, ACTIONS[0], expected=1)
    with pytest.raises(MisfitError, match=f'expected .*primary 48x64.* found {found}'):
        writer.add(images, ACTIONS[1], expected=1)


def test_a_data_set_without_episodes_is_not_one(tmp_path):
    with pytest.raises(ConvertError, match='expected episodes'):
        LeRobotWriter(tmp_path, fps=5).finish({})
