"""Bags are read at any place, whatever they are stored in, and damaged ones are named."""

from pathlib import Path
import pickle
import tracemalloc

import bag_folders as bags
from bag_folders import CAMERA
from bag_folders import CHUNKS
from bag_folders import START
from bag_folders import WORDS
from bag_folders import WRIST
import numpy as np
import pytest

from vla_policy_node.image_decoding import ImageError
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import read_image
from vla_policy_node.recordings import Recorded
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError

MESSAGES = [
    bags.words(0.0, 'touch the red block'),
    bags.image(0.1, 10, stamp_s=0.05), bags.image(0.3, 30, stamp_s=0.25),
    bags.image(0.5, 50, stamp_s=0.45), bags.image(0.5, 51, stamp_s=0.46),
    bags.image(0.2, 20, topic=WRIST),
    bags.chunk(0.35, [[0.01, 0.0, -0.02, 0.0, 0.1, 0.0, 1.0]], observed_s=0.25, plan='red'),
]


@pytest.fixture(scope='module', params=bags.FORMATS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    plugin, compression = bags.FORMATS[request.param]
    path = bags.write(tmp_path_factory.mktemp('bags') / 'bag', MESSAGES, plugin=plugin,
                      compression=compression)
    with Recording(path) as opened:
        yield opened


@pytest.fixture(scope='module')
def mcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write(tmp_path_factory.mktemp('bags') / 'bag', MESSAGES)


def test_topics_are_listed_with_type_and_count(recording: Recording) -> None:
    assert {(t.name, t.type, t.count) for t in recording.topics.values()} == {
        (CAMERA, 'sensor_msgs/msg/Image', 4), (WRIST, 'sensor_msgs/msg/CompressedImage', 1),
        (CHUNKS, 'vla_msgs/msg/EndEffectorDeltaChunk', 1), (WORDS, 'std_msgs/msg/String', 1)}


def test_an_index_holds_receipt_and_stamp_of_every_message(recording: Recording) -> None:
    camera, said = recording.index(CAMERA, WORDS)
    assert ((camera.received_ns - START) / 1e6).tolist() == [100.0, 300.0, 500.0, 500.0]
    assert ((camera.stamp_ns - START) / 1e6).tolist() == [50.0, 250.0, 450.0, 460.0]
    assert (said.stamp_ns == said.received_ns).all()    # a String has no header
    assert len(camera) == 4


def test_any_message_is_read_by_its_place_also_of_equal_times(recording: Recording) -> None:
    shades = [read_image(recording.read(CAMERA, place))[0, 0, 0] for place in (3, 0, 2, 1)]
    assert shades == [51, 10, 50, 30]


def test_a_compressed_image_is_decoded(recording: Recording) -> None:
    assert read_image(recording.read(WRIST, 0)).tolist() == [[[20] * 3] * 6] * 4


def test_a_chunk_is_read_as_canonical_actions(recording: Recording) -> None:
    chunk = read_chunk(recording.read(CHUNKS, 0))
    assert chunk.actions.tolist() == [[0.01, 0.0, -0.02, 0.0, 0.1, 0.0, 1.0]]
    assert chunk.terminate.tolist() == [False]
    assert chunk.observation_ns == START + 250_000_000
    assert (chunk.period_s, chunk.frame, chunk.plan) == (0.2, 'base', 'red')


def test_messages_come_in_order_of_receipt_and_within_the_times_asked_for(
    recording: Recording,
) -> None:
    found = [(r.topic, (r.received_ns - START) // 1_000_000)
             for r in recording.messages(CAMERA, CHUNKS)]
    assert found == [(CAMERA, 100), (CAMERA, 300), (CHUNKS, 350), (CAMERA, 500), (CAMERA, 500)]
    some = recording.messages(WORDS, CAMERA, start_ns=START + 1, stop_ns=START + 500_000_000)
    assert [r.received_ns - START for r in some] == [100_000_000, 300_000_000]


def test_a_recording_reads_on_after_being_closed_or_pickled(recording: Recording) -> None:
    recording.index(CAMERA)
    copy = pickle.loads(pickle.dumps(recording))
    recording.close()
    assert read_image(copy.read(CAMERA, 1))[0, 0, 0] == 30
    assert read_image(recording.read(CAMERA, 1))[0, 0, 0] == 30
    copy.close()


def test_the_newest_message_is_the_last_one_not_stamped_later(mcap: Path) -> None:
    (index,) = Recording(mcap).index(CAMERA)
    times = START + np.array([49, 50, 449, 455, 9000]) * 1_000_000
    assert index.newest_at(times).tolist() == [-1, 0, 1, 2, 3]


def test_a_single_file_is_a_recording_too(mcap: Path) -> None:
    assert len(Recording(next(mcap.glob('*.mcap'))).index(CAMERA)[0]) == 4


def test_a_missing_topic_lists_what_the_bag_has(mcap: Path) -> None:
    with pytest.raises(RecordingError, match=r'expected a topic /depth, found .*/camera/image_raw '
                                             r'\(sensor_msgs/msg/Image, 4\).*; name one of these'):
        Recording(mcap).index('/depth')


def test_a_topic_of_another_type_is_refused(mcap: Path) -> None:
    with pytest.raises(RecordingError, match='to be of type std_msgs/msg/String, found sensor_m'):
        Recording(mcap).require(CAMERA, ('std_msgs/msg/String',))


def test_a_picture_that_is_none_says_so() -> None:
    _, _, message = bags.image(0.0, 1)
    message.encoding = 'jpeg2000'
    with pytest.raises(ImageError, match="found 'jpeg2000'"):
        read_image(Recorded(topic=CAMERA, received_ns=0, message=message))


@pytest.mark.parametrize('name', ['absent', 'empty', 'notes.txt', 'zeros.mcap', 'zeros.db3'])
def test_what_is_no_bag_is_named_with_the_mend(tmp_path: Path, name: str) -> None:
    (tmp_path / 'empty').mkdir()
    for file in ('notes.txt', 'zeros.mcap', 'zeros.db3'):
        (tmp_path / file).write_bytes(bytes(100))
    with pytest.raises(RecordingError, match=f'{name}: expected a complete rosbag2 .*; recover'):
        Recording(tmp_path / name)


@pytest.mark.parametrize('kept', [0, 4, 20, 60, 300, -1, -30, -60])
def test_a_truncated_file_is_an_error_of_its_own_kind(
    tmp_path: Path, mcap: Path, kept: int,
) -> None:
    data = next(mcap.glob('*.mcap')).read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(data[:kept])
    with pytest.raises(RecordingError, match='cut.mcap'):
        Recording(tmp_path / 'cut.mcap').index(CAMERA)


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, mcap: Path) -> None:
    data = next(mcap.glob('*.mcap')).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(25):
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=4):
            damaged[place] ^= int(rng.integers(1, 256))
        path = tmp_path / f'{trial}.mcap'
        path.write_bytes(damaged)
        try:
            with Recording(path) as recording:
                for name in list(recording.topics):
                    for place in range(len(recording.index(name)[0])):
                        recording.read(name, place)
        except RecordingError:
            pass


def test_memory_does_not_grow_with_pictures(tmp_path: Path) -> None:
    _, _, big = bags.image(0.0, 1)
    big.height, big.width, big.step, big.data = 512, 512, 1536, np.zeros(512 * 1536, np.uint8)
    path = bags.write(tmp_path / 'bag', [(CAMERA, START + n, big) for n in range(60)])
    tracemalloc.start()
    with Recording(path) as recording:
        recording.index(CAMERA)
        for place in range(60):
            recording.read(CAMERA, place)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6      # the pictures are 47 MB
