"""Bags become data sets and data sets bags, by the command line, and come back the same."""

import json
from pathlib import Path
import resource

import bag_folders as bags
from convert_fakes import actions
from convert_fakes import FakeEpisode
from convert_fakes import FakeRecorded
from convert_fakes import picture
from convert_fakes import psnr
import lerobot_folders as folders
import numpy as np
import pytest
import recorded_bags
from rosbags.rosbag2 import StoragePlugin
from test_convert_dataset import open_source
import yaml

from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.training.convert import cli
from vla_policy_node.training.convert.to_lerobot import write_lerobot
from vla_policy_node.training.sources.config import BagsSection
from vla_policy_node.training.sources.config import open_robot_source

ROOT = Path(__file__).resolve().parents[1]
RECORDED = {'cameras': {'primary': bags.CAMERA}, 'actions': {'kind': 'chunk'},
            'instruction': {'topic': bags.WORDS}, 'frames': {'select': 'chunks'}}
CONVERTED = {'cameras': {'primary': '/primary/image_raw/compressed'},
             'actions': {'kind': 'chunk'}, 'instruction': {'topic': '/instruction'},
             'frames': {'select': 'chunks'}}
SHADES = (20, 60, 100, 140, 180, 220)
DONE = actions(6)


def write_bag(path: Path, **options) -> Path:
    """Write two episodes of three pictures and chunks each, 0.2 s apart."""
    messages = [bags.words(0.9, 'pick up the red block'), bags.words(4.9, 'wave')]
    for number, (shade, action) in enumerate(zip(SHADES, DONE, strict=True)):
        at_s = 1.0 + 0.2 * number if number < 3 else 5.0 + 0.2 * (number - 3)
        messages += [bags.image(at_s, shade), bags.chunk(at_s + 0.05, [action], observed_s=at_s)]
    return bags.write(path, messages, **options)


def write_own(root: Path) -> Path:
    """Write our own data set of two episodes."""
    episodes = [FakeEpisode(actions(4, 1)), FakeEpisode(actions(3, 2), 'wave', first=6)]
    write_lerobot(root, FakeRecorded(episodes), fps=5)
    return root


def config_file(path: Path, content: dict) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def convert(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize('plugin', list(StoragePlugin))
def test_a_bag_comes_back_as_a_source_of_training(tmp_path, plugin):
    bag = write_bag(tmp_path / 'bag', plugin=plugin)
    config = config_file(tmp_path / 'replay.yaml', {**RECORDED, 'report': {'worst_frames': 3}})
    assert convert('to-lerobot', bag, '--config', config, '--out', tmp_path / 'own') == 0
    source = open_source(tmp_path / 'own')
    np.testing.assert_allclose(source.actions(), DONE.astype(np.float32), atol=1e-15)
    assert source.episodes.tolist() == [0, 0, 0, 1, 1, 1]
    assert [source[place].instruction for place in (2, 3)] == ['pick up the red block', 'wave']
    for place, shade in enumerate(SHADES):
        seen = source[place].images['primary']
        assert seen.shape == (4, 6, 3)
        assert np.abs(seen.astype(int) - shade).max() <= 2


def test_velocities_and_a_fast_camera_become_steps_of_the_rate_asked_for(tmp_path):
    messages = [bags.image(0.05 * number, number) for number in range(61)]
    messages += [recorded_bags.twist(0.1 * number, linear=(0.1, 0, 0)) for number in range(40)]
    bag = bags.write(tmp_path / 'bag', messages)
    config = config_file(tmp_path / 'replay.yaml', {
        'cameras': {'primary': bags.CAMERA}, 'gripper': {'kind': 'none'},
        'actions': {'kind': 'twist', 'topic': recorded_bags.TWISTS}})
    assert convert('to-lerobot', bag, '--config', config, '--fps', 5, '--instruction', 'push',
                   '--out', tmp_path / 'own') == 0
    source = open_source(tmp_path / 'own')
    assert len(source) == 16
    np.testing.assert_allclose(source.actions()[:, 0], 0.02, atol=1e-8)
    shown = [int(source[place].images['primary'].mean()) for place in (5, 10, 15)]
    np.testing.assert_allclose(shown, [20, 40, 60], atol=2)


def test_several_bags_become_one_data_set(tmp_path):
    paths = [write_bag(tmp_path / name) for name in ('monday', 'tuesday')]
    config = config_file(tmp_path / 'replay.yaml', RECORDED)
    assert convert('to-lerobot', *paths, '--config', config, '--out', tmp_path / 'own') == 0
    assert open_source(tmp_path / 'own').episodes.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_the_period_is_that_of_the_checkpoint_where_one_is_named(tmp_path, capsys):
    config = config_file(tmp_path / 'replay.yaml', RECORDED)
    checkpoint = tmp_path / 'policy'
    checkpoint.mkdir()
    content = json.loads((ROOT / 'models/tabletop/vla_config.json').read_text())
    content['action_space']['period_s'] = 0.1
    (checkpoint / 'vla_config.json').write_text(json.dumps(content))
    bag = write_bag(tmp_path / 'bag')
    assert convert('to-lerobot', bag, '--config', config, '--checkpoint', checkpoint,
                   '--out', tmp_path / 'own') == 1
    error = capsys.readouterr().err
    assert 'chunk of deltas of 0.2 s, the policy acts in steps of 0.1 s' in error


def test_a_period_that_nothing_says_is_asked_for(tmp_path, capsys):
    content = {**RECORDED, 'frames': {}, 'gripper': {'kind': 'none'},
               'actions': {'kind': 'pose', 'topic': '/tool_pose'}}
    config = config_file(tmp_path / 'replay.yaml', content)
    bag = write_bag(tmp_path / 'bag')
    assert convert('to-lerobot', bag, '--config', config, '--out', tmp_path / 'own') == 1
    assert 'give --fps, or --checkpoint' in capsys.readouterr().err


def test_a_bag_without_chunks_names_the_topics_there_are(tmp_path, capsys):
    bag = bags.write(tmp_path / 'bag', [bags.image(1.0, 20)])
    config = config_file(tmp_path / 'replay.yaml', RECORDED)
    assert convert('to-lerobot', bag, '--config', config, '--fps', 5,
                   '--out', tmp_path / 'own') == 1
    error = capsys.readouterr().err
    assert bags.CAMERA in error
    assert bags.CHUNKS in error
    assert not (tmp_path / 'own').exists()


def test_an_unknown_key_of_the_configuration_is_named(tmp_path, capsys):
    config = config_file(tmp_path / 'replay.yaml', {**RECORDED, 'camera': 'x'})
    assert convert('to-lerobot', 'bag', '--config', config, '--out', tmp_path / 'own') == 1
    assert 'replay.yaml: camera: ' in capsys.readouterr().err


def test_what_was_left_out_is_told(tmp_path, capsys):
    messages = [bags.words(0.9, 'wave')]
    for number in range(7):
        action = np.full(7, np.nan if number == 3 else 0.5)
        messages += [bags.image(1.0 + 0.2 * number, 20), bags.chunk(
            1.05 + 0.2 * number, [action], observed_s=1.0 + 0.2 * number)]
    bag = bags.write(tmp_path / 'bag', messages)
    config = config_file(tmp_path / 'replay.yaml', RECORDED)
    assert convert('to-lerobot', bag, '--config', config, '--out', tmp_path / 'own') == 0
    told = capsys.readouterr().err
    assert 'left out: 1 x no usable action recorded' in told
    assert 'own: 2 episodes, 6 steps at 5 a second, cameras primary 4x6' in told
    assert open_source(tmp_path / 'own').episodes.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize('name', ['own.mcap', 'own_bag'])
def test_our_own_data_set_becomes_a_bag_without_a_configuration(tmp_path, name):
    root, out = write_own(tmp_path / 'own'), tmp_path / name
    assert convert('to-bag', root, '--out', out) == 0
    assert out.is_file() == name.endswith('.mcap')
    episodes = read_bags([out], RecordedConfig.model_validate(CONVERTED), period_s=0.2).episodes
    assert [episode.instruction for episode in episodes] == ['pick up the red block', 'wave']
    for episode, done in zip(episodes, (actions(4, 1), actions(3, 2)), strict=True):
        np.testing.assert_allclose(episode.actions, done.astype(np.float32), atol=1e-15)
        assert np.diff(episode.stamp_ns).tolist() == [200_000_000] * (len(done) - 1)


def test_a_pause_separates_episodes_with_the_same_words(tmp_path):
    write_lerobot(tmp_path / 'own', FakeRecorded([FakeEpisode(actions(4)), FakeEpisode(
        actions(3))]), fps=5)
    assert convert('to-bag', tmp_path / 'own', '--out', tmp_path / 'own.mcap') == 0
    first, second = read_bags([tmp_path / 'own.mcap'], RecordedConfig.model_validate(CONVERTED),
                              period_s=0.2).episodes
    assert (len(first), len(second)) == (4, 3)
    assert second.stamp_ns[0] - first.stamp_ns[-1] == 3_201_000_000


def test_pictures_of_a_bag_are_nearly_those_of_the_data_set_and_pixels_exactly(tmp_path):
    root = write_own(tmp_path / 'own')
    shown = open_source(root)[5].images['primary']
    for options, topic, decibels in (((), '/primary/image_raw/compressed', 34.0),
                                     (('--raw',), '/primary/image_raw', np.inf)):
        out = tmp_path / f'{len(options)}.mcap'
        assert convert('to-bag', root, '--out', out, *options) == 0
        config = {**CONVERTED, 'cameras': {'primary': topic}}
        bag = read_bags([out], RecordedConfig.model_validate(config), period_s=0.2)
        seen = bag.episodes[1].images(1)['primary']
        with np.errstate(divide='ignore'):
            assert psnr(seen, shown) >= decibels
            assert psnr(seen, picture(7)) > 33.0


def test_a_converted_bag_becomes_the_same_data_set_again(tmp_path):
    root = write_own(tmp_path / 'own')
    config = config_file(tmp_path / 'replay.yaml', CONVERTED)
    assert convert('to-bag', root, '--out', tmp_path / 'own.mcap') == 0
    assert convert('to-lerobot', tmp_path / 'own.mcap', '--config', config,
                   '--out', tmp_path / 'again') == 0
    before, after = open_source(root), open_source(tmp_path / 'again')
    np.testing.assert_allclose(after.actions(), before.actions(), atol=1e-8)
    assert after.episodes.tolist() == before.episodes.tolist()
    assert [after[place].instruction for place in range(7)] == [
        before[place].instruction for place in range(7)]
    assert psnr(after[6].images['primary'], picture(8)) > 33.0


def test_a_converted_bag_is_a_source_of_training_too(tmp_path):
    root = write_own(tmp_path / 'own')
    assert convert('to-bag', root, '--out', tmp_path / 'own.mcap') == 0
    source = open_robot_source('bag', BagsSection(
        kind='bags', paths=[str(tmp_path / 'own.mcap')], cameras=CONVERTED['cameras'],
        instruction_topic='/instruction'), horizon=2, period_s=0.2, cache=tmp_path / 'cache')
    np.testing.assert_allclose(source.actions(), open_source(root).actions(), atol=1e-15)
    assert source.episodes.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert source[6].instruction == 'wave'


@pytest.mark.parametrize('write', [folders.write_v21, folders.write_v30])
def test_a_public_data_set_becomes_a_bag_by_its_configuration(tmp_path, write, capsys):
    root = write(tmp_path / 'drawer')
    config = config_file(tmp_path / 'drawer.yaml', {
        'cameras': {'front': folders.CAMERA}, 'actions': {
            'mode': 'delta', 'translation': {'indices': [0, 1, 2], 'scale': 0.5},
            'gripper': {'index': 6}}})
    assert convert('to-bag', root, '--config', config, '--out', tmp_path / 'drawer.mcap') == 0
    assert 'drawer.mcap: 2 episodes, 7 steps' in capsys.readouterr().err
    recorded = {**CONVERTED, 'cameras': {'front': '/front/image_raw/compressed'}}
    first, second = read_bags([tmp_path / 'drawer.mcap'], RecordedConfig.model_validate(recorded),
                              period_s=0.1).episodes
    np.testing.assert_allclose(first.actions[:, 0], [0.005, 0.01, 0.015, 0.02], atol=1e-8)
    np.testing.assert_allclose(second.actions[:, 6], [1.0, 0.0, 0.0])
    assert (first.instruction, second.instruction) == folders.TASKS
    assert abs(int(first.images(2)['front'][0, 0, 0]) - folders.SHADES[0][2]) <= 3


def test_a_public_data_set_without_a_configuration_names_its_features(tmp_path, capsys):
    root = folders.write_v30(tmp_path / 'drawer')
    assert convert('to-bag', root, '--out', tmp_path / 'drawer.mcap') == 1
    error = capsys.readouterr().err
    assert 'found action [7], observation.images.front [48, 64, 3]' in error
    assert '--config' in error


def test_steps_that_cannot_be_used_leave_a_gap_and_are_counted(tmp_path, capsys):
    done = folders.ACTIONS.copy()
    done[1, 0] = np.nan
    root = folders.write_v21(tmp_path / 'drawer', actions=done)
    config = config_file(tmp_path / 'drawer.yaml', {
        'cameras': {'front': folders.CAMERA},
        'actions': {'mode': 'delta', 'translation': {'indices': [0, 1, 2]}}})
    assert convert('to-bag', root, '--config', config, '--out', tmp_path / 'drawer.mcap') == 0
    told = capsys.readouterr().err
    assert 'left out: 1 x step that cannot be used' in told
    assert 'the first: drawer: ' in told
    recorded = {**CONVERTED, 'cameras': {'front': '/front/image_raw/compressed'}}
    first = read_bags([tmp_path / 'drawer.mcap'], RecordedConfig.model_validate(recorded),
                      period_s=0.1).episodes[0]
    assert np.diff(first.stamp_ns).tolist() == [200_000_000, 100_000_000]


def test_a_folder_that_is_no_data_set_is_named(tmp_path, capsys):
    assert convert('to-bag', tmp_path, '--out', tmp_path / 'x.mcap') == 1
    assert 'expected a LeRobot data set with' in capsys.readouterr().err


def test_an_existing_bag_is_never_touched(tmp_path, capsys):
    root = write_own(tmp_path / 'own')
    (tmp_path / 'x.mcap').write_text('mine')
    assert convert('to-bag', root, '--out', tmp_path / 'x.mcap') == 1
    assert 'expected nothing there yet' in capsys.readouterr().err
    assert (tmp_path / 'x.mcap').read_text() == 'mine'


def test_a_full_disk_leaves_no_bag(tmp_path, capsys):
    root = write_own(tmp_path / 'own')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        status = convert('to-bag', root, '--out', tmp_path / 'x.mcap')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    assert 'expected room on the disk, found it full' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['own']
