"""Of a damaged bag everything is read that is there, and it is said how much that is."""

from contextlib import suppress
from pathlib import Path
import re

import bag_folders as bags
from bag_folders import CAMERA
from bag_folders import CHUNKS
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin

from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError

pytestmark = pytest.mark.slow

FRAMES = 40


def messages() -> list:
    """Return frames of about 37 kB, each with a chunk, so that a bag has several chunks."""
    found = []
    for n in range(FRAMES):
        topic, when, picture = bags.image(0.2 * n, n)
        picture.height, picture.width, picture.step = 100, 125, 375
        picture.data = np.random.default_rng(n).integers(0, 256, 37500).astype(np.uint8)
        found += [(topic, when, picture), bags.chunk(0.2 * n + 0.01, [[n] + [0] * 6],
                                                     observed_s=0.2 * n)]
    return found


def read(path: Path) -> RecordedBags:
    config = RecordedConfig.model_validate({
        'cameras': {'primary': CAMERA}, 'actions': {'kind': 'chunk'},
        'instruction': {'text': 'pick'}})
    return read_bags([path], config, period_s=0.2)


def written(folder: Path, plugin=StoragePlugin.MCAP, mode=CompressionMode.NONE) -> Path:
    return bags.write(folder / 'bag', messages(), plugin=plugin, compression=mode)


def count(found: RecordedBags) -> int:
    """Return how many frames can be looked at, having checked that they are the right ones."""
    (episode,) = found.episodes
    numbers = [int(episode.actions[frame.step, 0]) for frame in found.frames()]
    assert numbers == sorted(numbers)
    first = next(iter(found.frames())).images['primary']
    assert (first == np.random.default_rng(numbers[0]).integers(
        0, 256, 37500).astype(np.uint8).reshape(100, 125, 3)).all()
    return len(numbers)


def cut(path: Path, share: float) -> None:
    (file,) = (each for each in path.iterdir() if each.name != 'metadata.yaml')
    data = file.read_bytes()
    file.write_bytes(data[:int(share * len(data))])


@pytest.mark.parametrize('mode', [CompressionMode.NONE, CompressionMode.STORAGE,
                                  CompressionMode.MESSAGE, CompressionMode.FILE])
def test_an_mcap_file_that_is_cut_off_is_read_up_to_there(
    tmp_path: Path, mode: CompressionMode,
) -> None:
    path = written(tmp_path, mode=mode)
    assert count(read(path)) == FRAMES
    cut(path, 0.9)
    found = read(path)
    assert 25 <= count(found) < FRAMES
    (warning,) = found.warnings
    assert re.search(r'bag is damaged: bag.mcap: read \d+ of \d+ bytes \(\d+\.\d %\), the rest is',
                     warning)
    with pytest.raises(RecordingError, match='expected a complete rosbag2'):
        Recording(path).index(CAMERA)


def test_a_damaged_chunk_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, mode=CompressionMode.STORAGE)
    (file,) = path.glob('*.mcap')
    data = bytearray(file.read_bytes())
    data[data.index(b'\x28\xb5\x2f\xfd', 2 ** 20)] ^= 0xFF     # the second chunk's first byte
    file.write_bytes(data)
    found = read(path)
    assert 10 <= count(found) < FRAMES
    (warning,) = found.warnings
    assert 'read to its end, 1 damaged chunks left out' in warning


def test_a_sqlite_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = written(tmp_path, StoragePlugin.SQLITE3)
    assert count(read(path)) == FRAMES
    cut(path, 0.7)
    found = read(path)
    assert 10 <= count(found) < FRAMES
    (warning,) = found.warnings
    assert re.search(r'bag is damaged: bag.db3: read \d+ messages, then: ', warning)


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_folder_without_metadata_is_read_whole(tmp_path: Path, plugin: StoragePlugin) -> None:
    path = written(tmp_path, plugin)
    (path / 'metadata.yaml').unlink()
    found = read(path)
    assert count(found) == FRAMES
    assert found.warnings == [
        f'{path} is damaged: its index is missing, all messages could be read']
    assert found.episodes[0].images(7)['primary'].shape == (100, 125, 3)


@pytest.mark.parametrize('kept', [0.0, 0.001, 0.01])
def test_a_bag_of_which_nothing_is_left_is_an_error(tmp_path: Path, kept: float) -> None:
    path = written(tmp_path)
    cut(path, kept)
    with pytest.raises(RecordingError, match='bag: expected a complete rosbag2'):
        read(path)


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, plugin: StoragePlugin) -> None:
    path = written(tmp_path, plugin)
    (file,) = (each for each in path.iterdir() if each.name != 'metadata.yaml')
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    usable = 0
    for _ in range(25):
        damaged = bytearray(data)
        for place in (*rng.integers(len(data), size=20), *rng.integers(20000, size=1)):
            damaged[place] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged)
        with suppress(RecordingError):
            usable += sum(1 for _ in read(path).frames()) > 0
    assert usable > 10


def test_a_message_that_makes_no_sense_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path)
    (file,) = path.glob('*.mcap')
    # The length of the deltas of one chunk message, of which there is one.
    data = bytearray(file.read_bytes())
    place = data.index(b'base\0') + 4
    data[place + 28:place + 32] = b'\xff\xff\xff\x0f'
    file.write_bytes(data)
    found = read(path)
    assert found.skipped[f'message of {CHUNKS} unreadable'] in (0, 1)
    assert count(found) >= FRAMES - 1


def test_a_record_that_claims_to_be_huge_ends_the_reading(tmp_path: Path) -> None:
    path = written(tmp_path)
    (file,) = path.glob('*.mcap')
    data = bytearray(file.read_bytes())
    start = 8       # of the header's record, behind which the first chunk begins
    first = start + 9 + int.from_bytes(data[start + 1:start + 9], 'little')
    second = first + 9 + int.from_bytes(data[first + 1:first + 9], 'little')
    data[second + 1:second + 9] = (2 ** 62).to_bytes(8, 'little')
    file.write_bytes(data[:-37])     # without the footer nothing of the index is found
    found = read(path)
    assert 10 <= count(found) < FRAMES
    assert f'read {second} of {len(data) - 37} bytes' in found.warnings[0]
