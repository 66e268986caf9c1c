"""The words that an MCAP file says of itself are read; what is damaged says none."""

import bag_folders as bags
import mcap_records as records
import pytest

from vla_policy_node.mcap_metadata import read_mcap_metadata
from vla_policy_node.recordings import Recording

ROSBAG2 = 'version: 9\ncustom_data:\n  task: pick up the cup\n  trial: 7\n'


def test_rosbag2_keeps_its_custom_data_in_a_record_of_its_own(tmp_path):
    path = records.write(tmp_path / 'a.mcap', ('rosbag2', {'serialized_metadata': ROSBAG2}))
    assert read_mcap_metadata(path) == {'task': 'pick up the cup', 'trial': '7'}


def test_other_records_say_their_own_words_and_the_last_one_counts(tmp_path):
    path = records.write(
        tmp_path / 'a.mcap', ('session', {'task': 'wipe', 'operator': 'Ämi'}),
        ('rosbag2', {'serialized_metadata': 'version: 9\n'}), ('later', {'task': 'sweep'}))
    assert read_mcap_metadata(path) == {'task': 'sweep', 'operator': 'Ämi'}


def test_a_file_without_a_summary_says_nothing(tmp_path):
    assert read_mcap_metadata(records.write(tmp_path / 'a.mcap')) == {}


def test_wherever_a_file_is_cut_off_or_changed_it_says_nothing_else(tmp_path):
    path = records.write(tmp_path / 'a.mcap', ('session', {'task': 'wipe'}))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_mcap_metadata(path) == {}
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
        assert set(map(type, read_mcap_metadata(path).values())) <= {str}


def test_a_file_that_is_not_there_says_nothing(tmp_path):
    assert read_mcap_metadata(tmp_path / 'none.mcap') == {}


@pytest.mark.parametrize('yaml', ['- 1', 'custom_data: 3', '{', 'a: !!python/object:os.system {}'])
def test_metadata_of_another_kind_says_nothing(tmp_path, yaml):
    path = records.write(tmp_path / 'a.mcap', ('rosbag2', {'serialized_metadata': yaml}))
    assert read_mcap_metadata(path) == {}


def test_a_file_taken_out_of_its_folder_still_has_the_words(tmp_path):
    folder = bags.write(tmp_path / 'bag', [bags.words(1.0, 'go')], custom={'task': 'open it'})
    (file,) = folder.glob('*.mcap')
    records.add(file, 'rosbag2', {'serialized_metadata': ROSBAG2})
    with Recording(folder) as whole:
        assert whole.custom_data == {'task': 'open it', 'trial': '7'}
    alone = file.rename(tmp_path / 'alone.mcap')
    with Recording(alone) as recording:
        assert recording.custom_data == {'task': 'pick up the cup', 'trial': '7'}
        assert recording.topics[bags.WORDS].count == 1
