"""Recorded episodes become a data set: what cannot be used is counted, and nothing is halved."""

import json
from pathlib import Path
import resource

from convert_fakes import actions
from convert_fakes import FakeEpisode
from convert_fakes import FakeRecorded
from convert_fakes import picture
from convert_fakes import psnr
from convert_fakes import START_NS
import numpy as np
import pytest
from test_convert_dataset import open_source

from vla_policy_node.training.convert import to_lerobot
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.training.convert.to_lerobot import whole_fps
from vla_policy_node.training.convert.to_lerobot import write_lerobot


def convert(out: Path, *episodes: FakeEpisode, fps: int = 5, **options):
    return write_lerobot(out, FakeRecorded(episodes, **options), fps=fps)


def numbers_of(root: Path) -> list[list[int]]:
    """Return which picture every step has, by episode."""
    source = open_source(root)
    found: list[list[int]] = [[] for _ in range(source.episodes.max() + 1)]
    for place in range(len(source)):
        seen = source[place].images['primary']
        ratios = [psnr(seen, picture(number, seen.shape[:2])) for number in range(12)]
        found[source.episodes[place]].append(int(np.argmax(ratios)))
    return found


def with_nan(count: int, *places: int) -> np.ndarray:
    drawn = actions(count)
    drawn[list(places), 1] = np.nan
    return drawn


def test_episodes_come_back_with_pictures_actions_and_words(tmp_path):
    first, second = actions(6, 1), actions(4, 2)
    written = convert(tmp_path / 'out', FakeEpisode(first),
                      FakeEpisode(second, instruction='wave', first=7))
    source = open_source(tmp_path / 'out')
    assert (written.episodes, written.frames, written.left_out) == (2, 10, {})
    assert numbers_of(tmp_path / 'out') == [[0, 1, 2, 3, 4, 5], [7, 8, 9, 10]]
    np.testing.assert_allclose(
        source.actions(), np.concatenate([first, second]).astype(np.float32), atol=1e-15)
    assert [source[place].instruction for place in (5, 6)] == ['pick up the red block', 'wave']


def test_a_faster_camera_is_thinned_to_the_period_with_the_actions_of_its_frames(tmp_path):
    done = actions(11)
    stamps = START_NS + np.arange(11) * 40_000_000
    convert(tmp_path / 'out', FakeEpisode(done, stamp_ns=stamps))
    assert numbers_of(tmp_path / 'out') == [[0, 5, 10]]
    np.testing.assert_allclose(open_source(tmp_path / 'out').actions(),
                               done[[0, 5, 10]].astype(np.float32), atol=1e-15)


def test_an_action_that_is_not_finite_cuts_the_episode_and_is_counted(tmp_path):
    written = convert(tmp_path / 'out', FakeEpisode(with_nan(7, 3)))
    assert numbers_of(tmp_path / 'out') == [[0, 1, 2], [4, 5, 6]]
    assert written.left_out == {to_lerobot.UNUSABLE: 1}


def test_a_picture_that_cannot_be_read_cuts_the_episode(tmp_path):
    written = convert(tmp_path / 'out', FakeEpisode(actions(6)), damaged=[(0, 2)],
                      skipped={'picture of /camera not decodable': 1})
    assert numbers_of(tmp_path / 'out') == [[0, 1], [3, 4, 5]]
    assert written.left_out == {'picture of /camera not decodable': 1}


def test_pictures_of_another_size_than_the_first_are_left_out_and_cut(tmp_path):
    class Growing(FakeEpisode):
        def images(self, step):
            return {'primary': picture(step, (48, 64) if step != 3 else (96, 128))}

    written = convert(tmp_path / 'out', Growing(actions(6)))
    assert numbers_of(tmp_path / 'out') == [[0, 1, 2], [4, 5]]
    assert written.left_out == {to_lerobot.MISFIT: 1}
    assert written.cameras == {'primary': (48, 64)}


def test_an_episode_with_other_cameras_is_left_out(tmp_path):
    class Wrist(FakeEpisode):
        def images(self, step):
            return {'wrist': picture(step)}

    written = convert(tmp_path / 'out', FakeEpisode(actions(3)), Wrist(actions(4)))
    assert (written.episodes, written.left_out) == (1, {to_lerobot.MISFIT: 4})


def test_two_cameras_have_a_video_each_of_their_own_size(tmp_path):
    class Both(FakeEpisode):
        def images(self, step):
            return {'primary': picture(step), 'wrist': picture(step, (64, 48))}

    written = convert(tmp_path / 'out', Both(actions(3)))
    assert written.cameras == {'primary': (48, 64), 'wrist': (64, 48)}
    assert len(list((tmp_path / 'out').glob('videos/*/chunk-000/file-000.mp4'))) == 2


def test_where_the_data_come_from_is_written_down(tmp_path):
    convert(tmp_path / 'out', FakeEpisode(with_nan(7, 3)))
    notes = json.loads((tmp_path / 'out/meta/conversion.json').read_text())
    assert notes['episodes'] == [{'bag': 'monday.mcap', 'first_stamp_ns': START_NS},
                                 {'bag': 'monday.mcap', 'first_stamp_ns': START_NS + 800_000_000}]
    assert notes['left_out'] == {to_lerobot.UNUSABLE: 1}


def test_progress_counts_every_planned_step(tmp_path):
    seen = []
    write_lerobot(tmp_path / 'out', FakeRecorded([FakeEpisode(actions(3)), FakeEpisode(
        actions(2))], damaged=[(0, 1)]), fps=5, show=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize('episode', [FakeEpisode(actions(0)), FakeEpisode(actions(1))])
def test_an_episode_without_duration_leaves_nothing_to_write(tmp_path, episode):
    with pytest.raises(ConvertError, match='expected frames to write, found none'):
        convert(tmp_path / 'out', episode)
    assert list(tmp_path.iterdir()) == []


def test_without_any_finite_action_the_reason_is_told(tmp_path):
    with pytest.raises(ConvertError, match=r'found none: frame without a finite action \(3\)'):
        convert(tmp_path / 'out', FakeEpisode(with_nan(3, 0, 1, 2)))


def test_frames_too_rare_for_the_rate_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConvertError, match=r'every 0\.2 s, so choose a smaller rate than 10'):
        convert(tmp_path / 'out', FakeEpisode(actions(5)), fps=10)


@pytest.mark.parametrize('make', [Path.mkdir, Path.touch])
def test_what_is_there_already_is_never_touched(tmp_path, make):
    make(tmp_path / 'out')
    with pytest.raises(ConvertError, match='expected nothing there yet'):
        convert(tmp_path / 'out', FakeEpisode(actions(3)))
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_what_is_there_already_is_noticed_before_any_work(tmp_path):
    class Unread(FakeRecorded):
        def frames(self, wanted):
            raise AssertionError('frames were read')

    (tmp_path / 'out').mkdir()
    with pytest.raises(ConvertError, match='expected nothing there yet'):
        write_lerobot(tmp_path / 'out', Unread([FakeEpisode(actions(3))]), fps=5)


def test_what_appears_during_the_work_is_not_replaced(tmp_path):
    def appear(done, total):
        (tmp_path / 'out').mkdir(exist_ok=True)

    with pytest.raises(ConvertError, match='expected nothing there yet'):
        write_lerobot(tmp_path / 'out', FakeRecorded([FakeEpisode(actions(3))]), fps=5,
                      show=appear)
    assert [*tmp_path.rglob('*')] == [tmp_path / 'out']


def test_an_interruption_leaves_nothing(tmp_path):
    class Interrupted(FakeEpisode):
        def images(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return super().images(step)

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / 'out', Interrupted(actions(6)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('largest', [1000, 4000, 20_000])
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path, largest):
    # A limit on the size of files is what a test can set; a full disk takes the same way.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(ConvertError, match='expected room on the disk, found it full') as told:
            convert(tmp_path / 'out', *(FakeEpisode(actions(60, seed)) for seed in range(3)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '\n' not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('period_s', 'fps'), [(0.2, 5), (0.1, 10), (1 / 30, 30), (0.0334, 30)])
def test_a_period_is_a_whole_number_of_steps_a_second(period_s, fps):
    assert whole_fps(period_s) == fps


@pytest.mark.parametrize(('period_s', 'remedy'), [(0.3, '--fps, for example 3'),
                                                  (2.5, '--fps, for example 1')])
def test_another_period_is_refused_with_the_remedy(period_s, remedy):
    with pytest.raises(ConvertError, match=remedy):
        whole_fps(period_s)
