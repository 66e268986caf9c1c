"""Episodes are found in bags of every kind, and what cannot be used is counted and named."""

from pathlib import Path
import tracemalloc

import bag_folders as bags
from bag_folders import CAMERA
from bag_folders import CHUNKS
from bag_folders import START
from bag_folders import WRIST
import numpy as np
import pytest
import recorded_bags as robot

from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recorded.bags import check_topics
from vla_policy_node.recordings import RecordingError


def config(**changes) -> RecordedConfig:
    return RecordedConfig.model_validate({
        'cameras': {'primary': CAMERA}, 'actions': {'kind': 'chunk'},
        'instruction': {'text': 'pick'}, **changes})


def acted(count: int, first_s: float = 0.0) -> list:
    """Return pictures every 0.1 s, each second one with a chunk that moves x by its number."""
    messages = [bags.image(first_s + 0.1 * n + 0.02, n % 256, stamp_s=first_s + 0.1 * n)
                for n in range(2 * count)]
    return messages + [
        bags.chunk(first_s + 0.2 * n + 0.06, [[n, 0, 0, 0, 0, 0, 1]], observed_s=first_s + 0.2 * n)
        for n in range(count)]


def read(path: Path | list, settings: RecordedConfig | None = None, **options) -> RecordedBags:
    paths = path if isinstance(path, list) else [path]
    return read_bags(paths, settings or config(), period_s=0.2, **options)


def seconds(stamp_ns: np.ndarray) -> list[float]:
    return ((stamp_ns - START) / 1e9).round(6).tolist()


def shades(found: RecordedBags, camera: str = 'primary') -> list[int]:
    return [int(frame.images[camera][0, 0, 0]) for frame in found.frames()]


@pytest.mark.parametrize('kind', bags.FORMATS)
@pytest.mark.parametrize('single', [False, True])
def test_a_bag_is_read_whatever_it_is_stored_in(tmp_path: Path, kind: str, single: bool) -> None:
    plugin, compression = bags.FORMATS[kind]
    path = bags.write(tmp_path / 'bag', acted(3), plugin=plugin, compression=compression)
    if single:
        (path / 'metadata.yaml').unlink()
        (path,) = path.iterdir()
    found = read(path)
    (episode,) = found.episodes
    assert seconds(episode.stamp_ns) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert seconds(episode.received_ns) == [0.02, 0.12, 0.22, 0.32, 0.42, 0.52]
    assert episode.actions[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert shades(found) == [0, 1, 2, 3, 4, 5]
    assert episode.images(3)['primary'].tolist() == [[[3] * 3] * 6] * 4
    assert (found.skipped, found.warnings) == ({}, [])


def test_frames_of_recorded_chunks_have_exactly_the_recorded_actions(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', acted(4))
    found = read(path, config(frames={'select': 'chunks'}))
    assert seconds(found.episodes[0].stamp_ns) == [0.0, 0.2, 0.4, 0.6]
    assert found.episodes[0].actions[:, 0].tolist() == [0, 1, 2, 3]


def test_frames_are_taken_every_period_or_every_so_many(tmp_path: Path) -> None:
    messages = [bags.image(0.07 * n, n) for n in range(10)]
    chunks = [bags.chunk(0.1 * n, [[0] * 7]) for n in range(8)]
    path = bags.write(tmp_path / 'bag', [*messages, *chunks])
    periods = read(path, config(frames={'select': 'period'}))
    assert seconds(periods.episodes[0].stamp_ns) == [0.0, 0.14, 0.35, 0.56]
    third = read(path, config(frames={'every': 3}))
    assert seconds(third.episodes[0].stamp_ns) == [0.0, 0.21, 0.42, 0.63]
    assert shades(third) == [0, 3, 6, 9]


def test_a_chunk_of_actions_ends_with_its_episode(tmp_path: Path) -> None:
    found = read(bags.write(tmp_path / 'bag', acted(3)), config(frames={'select': 'chunks'}))
    chunks = found.episodes[0].chunks(2)
    assert chunks[:, 0, 0].tolist() == [0, 1, 2]
    assert chunks[:2, 1, 0].tolist() == [1, 2]
    assert np.isnan(chunks[2, 1]).all()
    assert np.isnan(found.episodes[0].previous[0]).all()
    assert found.episodes[0].previous[1:, 0].tolist() == [0, 1]


def test_another_instruction_and_a_long_pause_begin_another_episode(tmp_path: Path) -> None:
    messages = [*acted(2), *acted(2, 1.0), *acted(2, 9.0), bags.words(-0.1, 'touch'),
                bags.words(0.9, ' pick ')]
    path = bags.write(tmp_path / 'bag', messages)
    found = read(path, config(instruction={'topic': bags.WORDS}))
    assert [(e.instruction, seconds(e.stamp_ns)[0], e.number) for e in found.episodes] == [
        ('touch', 0.0, 0), ('pick', 1.0, 1), ('pick', 9.0, 2)]


def test_a_task_that_is_done_ends_its_episode(tmp_path: Path) -> None:
    done = bags.chunk(0.5, [[5, 0, 0, 0, 0, 0, 1]], observed_s=0.4, terminate=True)
    messages = [*acted(2), done, *[bags.image(at, 0) for at in (0.4, 0.45)], *acted(2, 0.6)]
    found = read(bags.write(tmp_path / 'bag', messages))
    assert [seconds(e.stamp_ns) for e in found.episodes] == [
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.45], [0.6, 0.7, 0.8, 0.9]]


def test_status_says_the_words_of_the_frames_before_it(tmp_path: Path) -> None:
    messages = [*acted(2), bags.status(-0.5, ''), bags.status(0.07, 'touch'),
                bags.status(0.27, 'touch'), bags.status(0.9, '')]
    found = read(bags.write(tmp_path / 'bag', messages),
                 config(instruction={'topic': bags.STATUS}))
    assert [(e.instruction, seconds(e.stamp_ns)) for e in found.episodes] == [
        ('touch', [0.0, 0.1, 0.2])]
    assert found.skipped == {'no instruction': 1}


def test_words_come_from_metadata_or_from_who_asks(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', acted(2), custom={'task': 'push left'})
    said = config(instruction={'metadata': 'task'})
    assert read(path, said).episodes[0].instruction == 'push left'
    assert read(next(path.glob('*.mcap')), said).episodes[0].instruction == 'push left'
    assert read(path, said, instruction='touch').episodes[0].instruction == 'touch'
    with pytest.raises(RecordingError, match="'words' in the metadata of the bag, found task;"):
        read(path, config(instruction={'metadata': 'words'}))
    with pytest.raises(RecordingError, match='where the instruction comes from, found nothing'):
        read(path, config(instruction=None))


def test_velocities_and_joints_of_a_robot_make_actions(tmp_path: Path) -> None:
    messages = [bags.image(0.1 * n, n) for n in range(10)]
    messages += [robot.twist(0.05 * n, (0.1, 0, 0)) for n in range(20)]
    messages += [robot.joints(0.1 * n, arm=1.0, left=0.02 if n < 5 else 0.0,
                              right=0.04 if n < 5 else 0.0) for n in range(12)]
    messages += [robot.joints(0.1 * n + 0.01, arm=0.0) for n in range(12)]
    path = bags.write(tmp_path / 'bag', messages)
    found = read(path, config(
        actions={'kind': 'twist', 'topic': robot.TWISTS, 'frame': 'base'}, gripper={
            'kind': 'joint_state', 'topic': robot.JOINTS, 'joints': ('left', 'right'),
            'closed': 0.0, 'open': 0.03}))
    assert found.episodes[0].actions[:, 0].round(9).tolist() == [0.02] * 10
    # The gripper is that of the period's end.
    assert found.episodes[0].actions[:, 6].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.frame_ids == {'base'}


def test_messages_in_another_frame_are_left_out(tmp_path: Path) -> None:
    messages = [bags.image(0.1 * n, n) for n in range(5)]
    messages += [robot.twist(0.1 * n, frame='tool') for n in range(5)]
    path = bags.write(tmp_path / 'bag', messages)
    with pytest.raises(RecordingError, match=r"in frame 'tool', not 'base' \(5\)"):
        read(path, config(actions={'kind': 'twist', 'topic': robot.TWISTS, 'frame': 'base'},
                          gripper={'kind': 'none'}))


def test_joints_that_do_not_occur_are_named_with_those_that_do(tmp_path: Path) -> None:
    messages = [bags.image(0.0, 0), robot.twist(0.0), robot.joints(0.0, a=1.0, b=2.0)]
    path = bags.write(tmp_path / 'bag', messages)
    with pytest.raises(RecordingError, match='expected joints finger in .*, found a, b;'):
        read(path, config(actions={'kind': 'twist', 'topic': robot.TWISTS}, gripper={
            'kind': 'joint_state', 'topic': robot.JOINTS, 'joints': ('finger',), 'closed': 0,
            'open': 1}))


def test_every_frame_has_the_newest_pictures_of_the_other_cameras(tmp_path: Path) -> None:
    messages = acted(3) + [bags.image(at, shade, topic=WRIST, stamp_s=at - 0.05)
                           for at, shade in ((0.05, 100), (0.17, 101), (0.38, 102))]
    found = read(bags.write(tmp_path / 'bag', messages),
                 config(cameras={'primary': CAMERA, 'wrist': WRIST}))
    assert seconds(found.episodes[0].stamp_ns) == [0.0, 0.1, 0.2, 0.4]
    assert shades(found, 'wrist') == [100, 100, 101, 102]
    assert shades(found) == [0, 1, 2, 4]
    assert found.skipped == {'no picture of camera wrist in the 0.1 s before': 2}
    assert list(found.episodes[0].images(2)) == ['primary', 'wrist']


def test_frames_without_an_action_are_counted(tmp_path: Path) -> None:
    messages = [bags.image(-1.0 + 0.1 * n, n) for n in range(8)] + acted(2)
    messages.append(bags.chunk(0.5, [[np.nan, 0, 0, 0, 0, 0, 0]], observed_s=0.4))
    messages.append(bags.image(0.4, 9))
    found = read(bags.write(tmp_path / 'bag', messages))
    assert seconds(found.episodes[0].stamp_ns) == [0.0, 0.1, 0.2, 0.3]
    assert found.skipped == {'no usable action recorded': 9}


def test_a_frame_out_of_order_is_left_out(tmp_path: Path) -> None:
    messages = [*acted(2), bags.image(0.33, 9, stamp_s=0.15)]
    found = read(bags.write(tmp_path / 'bag', messages))
    assert seconds(found.episodes[0].stamp_ns) == [0.0, 0.1, 0.2, 0.3]
    assert found.skipped == {'time going backwards': 1}
    assert shades(found) == [0, 1, 2, 3]


def test_a_clock_that_is_set_back_begins_another_episode(tmp_path: Path) -> None:
    def run(received_s: float, move: float) -> list:
        return [bags.image(received_s + 0.2 * n, 10 * round(move) + n, stamp_s=5 + 0.2 * n)
                for n in range(20)] + [
            bags.chunk(received_s + 0.2 * n + 0.05, [[move, 0, 0, 0, 0, 0, 1]],
                       observed_s=5 + 0.2 * n) for n in range(20)]
    found = read(bags.write(tmp_path / 'bag', [*run(0.0, 1.0), *run(4.0, 2.0)]))
    assert [set(e.actions[:, 0]) for e in found.episodes] == [{1.0}, {2.0}]
    assert found.skipped == {'clock set back: another episode begins': 1}
    assert shades(found) == [*range(10, 30), *range(20, 40)]


def test_pictures_that_cannot_be_decoded_are_counted_once(tmp_path: Path) -> None:
    messages = acted(3)
    for topic, _, message in messages[1:3]:
        assert topic == CAMERA
        message.encoding = '32FC1'
    found = read(bags.write(tmp_path / 'bag', messages))
    assert shades(found) == shades(found) == [0, 3, 4, 5]
    assert found.skipped == {'picture of /camera/image_raw not decodable': 2}
    (warning,) = found.warnings
    assert 'the first picture of /camera/image_raw that is not decodable: expected an' in warning
    assert "found '32FC1'" in warning


def test_mixed_encodings_are_each_converted_and_named(tmp_path: Path) -> None:
    messages = acted(2)
    messages[1][2].encoding = 'bgr8'
    messages[1][2].data = np.tile(np.array([1, 2, 3], np.uint8), 24)
    found = read(bags.write(tmp_path / 'bag', messages))
    assert [frame.images['primary'][0, 0].tolist() for frame in found.frames()][1] == [3, 2, 1]
    (warning,) = found.warnings
    assert '/camera/image_raw has pictures of several encodings: rgb8 (3), bgr8 (1)' in warning


def test_words_that_a_prompt_refuses_are_no_instruction(tmp_path: Path) -> None:
    messages = [*acted(2), bags.words(-1.0, '<image> pick'), bags.words(0.15, 'pick')]
    found = read(bags.write(tmp_path / 'bag', messages), config(instruction={'topic': bags.WORDS}))
    assert seconds(found.episodes[0].stamp_ns) == [0.2, 0.3]
    assert found.skipped['no instruction'] == 2
    assert any('special token' in reason for reason in found.skipped)


def test_an_instruction_without_any_action_is_an_empty_episode(tmp_path: Path) -> None:
    messages = [*acted(2), bags.words(-1.0, 'pick'), bags.words(4.9, 'touch'),
                *[bags.image(5.0 + 0.1 * n, n) for n in range(3)]]
    found = read(bags.write(tmp_path / 'bag', messages), config(instruction={'topic': bags.WORDS}))
    assert len(found.episodes) == 1
    assert found.skipped == {
        'no usable action recorded': 3, 'episode without a usable frame': 1}


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', [*acted(2), bags.words(0.0, '')])
    with pytest.raises(RecordingError, match=r'found none: no instruction \(4\), .*check the to'):
        read(path, config(instruction={'topic': bags.WORDS}))


def test_a_missing_topic_lists_what_there_is_before_anything_is_read(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', acted(1))
    wrong = config(cameras={'primary': '/front'})
    for look in (check_topics, read):
        with pytest.raises(RecordingError, match=r'topic /front, found .*/camera/image_raw \(s'):
            look(path, wrong)


def test_a_bag_that_does_not_serve_is_left_out_of_many(tmp_path: Path) -> None:
    good, other = (bags.write(tmp_path / name, messages) for name, messages in (
        ('good', acted(2)), ('other', [bags.words(0.0, 'hi')])))
    found = read([other, good, tmp_path / 'absent'])
    assert [episode.path for episode in found.episodes] == [good]
    assert found.skipped['bag left out'] == 2
    assert [warning.split(':')[0] for warning in found.warnings] == ['left out'] * 2


def test_episodes_are_counted_over_all_bags_up_to_the_last_frame_asked_for(tmp_path: Path) -> None:
    paths = [bags.write(tmp_path / name, acted(2)) for name in 'abc']
    found = read(paths, max_frames=6)
    assert [(e.path.name, e.number, len(e)) for e in found.episodes] == [('a', 0, 4), ('b', 1, 2)]
    assert len(found) == 6
    assert shades(found) == [0, 1, 2, 3, 0, 1]


def test_memory_does_not_grow_with_pictures(tmp_path: Path) -> None:
    messages = acted(30)
    _, _, big = bags.image(0.0, 1)
    for place, (topic, when, message) in enumerate(messages):
        if topic == CAMERA:
            big = bags.image(0.0, 1)[2]
            big.header = message.header
            big.height, big.width, big.step = 512, 512, 1536
            big.data = np.zeros(512 * 1536, np.uint8)
            messages[place] = (topic, when, big)
    path = bags.write(tmp_path / 'bag', messages)
    del messages
    tracemalloc.start()
    assert sum(1 for _ in read(path).frames()) == 60
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6      # the pictures are 47 MB


def test_only_pictures_that_are_looked_at_are_decoded(tmp_path: Path, monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr('vla_policy_node.recorded.pictures.read_image',
                        lambda recorded: decoded.append(recorded.topic) or np.zeros((1, 1, 3)))
    found = read(bags.write(tmp_path / 'bag', acted(6)), config(frames={'every': 4}))
    assert len(list(found.frames())) == len(decoded) == 3
    assert CHUNKS not in decoded


def test_of_chosen_steps_alone_pictures_are_decoded(tmp_path: Path, monkeypatch) -> None:
    paths = [bags.write(tmp_path / name, acted(6)) for name in ('a', 'b', 'c')]
    seen = [(frame.episode.number, frame.step, int(frame.images['primary'][0, 0, 0]))
            for frame in read(paths).frames([[1, 4], [], [0]])]
    assert seen == [(0, 1, 1), (0, 4, 4), (2, 0, 0)]
    decoded = []
    monkeypatch.setattr('vla_policy_node.recorded.pictures.read_image',
                        lambda recorded: decoded.append(recorded.topic) or np.zeros((1, 1, 3)))
    assert len(list(read(paths).frames([[1, 4], [], [0]]))) == len(decoded) == 3


def test_a_chunk_of_actions_does_not_reach_into_the_next_episode(tmp_path: Path) -> None:
    messages = [*acted(4), bags.words(-0.1, 'touch'), bags.words(0.35, 'pick')]
    found = read(bags.write(tmp_path / 'bag', messages),
                 config(instruction={'topic': bags.WORDS}, frames={'select': 'chunks'}))
    first, second = found.episodes
    assert first.chunks(2)[0, :, 0].tolist() == [0, 1]
    assert np.isnan(first.chunks(2)[1, 1]).all()
    assert np.isnan(second.previous[0]).all()
