"""What every source of questions and answers keeps, and pictures to make one of."""

from pathlib import Path
import pickle

import numpy as np
from PIL import Image
import pytest

from vla_policy_node.training.sources.records import TextRecord


def write_picture(path: Path, level: int = 0) -> None:
    """Write a picture of one grey level, 6 high and 8 wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(path)


class TextSourceContract:
    """
    Inherit and give make_source(folder, count): a source named 'web' over `count` records.

    Record i is asked 'what is this' and answered 'thing i' with one picture of grey level i.
    """

    def make_source(self, folder: Path, count: int):
        """Write data below a fresh folder and open it, with the cache in folder / 'cache'."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path):
        """Return a source of five records."""
        return self.make_source(tmp_path, 5)

    def test_it_is_a_text_source_of_its_name_and_length(self, source):
        assert (source.name, source.kind, len(source)) == ('web', 'text', 5)

    def test_a_record_is_a_question_with_its_answer_and_picture(self, source):
        record = source[3]
        assert isinstance(record, TextRecord)
        assert (record.question, record.answer) == ('what is this', 'thing 3')
        (picture,) = record.images.values()
        assert picture.dtype == np.uint8 and picture.shape == (6, 8, 3)
        assert abs(int(picture[0, 0, 0]) - 3) <= 1

    def test_the_same_number_gives_the_same_record(self, source):
        assert source[2].answer == source[2].answer == 'thing 2'

    def test_every_record_has_an_episode(self, source):
        assert source.episodes.shape == (5,) and source.episodes.dtype == np.int64
        assert len(set(source.episodes.tolist())) == 5

    def test_a_pickled_copy_reads_the_same(self, source):
        assert source[1].answer == 'thing 1'
        copy = pickle.loads(pickle.dumps(source))
        assert copy[4].answer == 'thing 4'
        assert copy.episodes.tolist() == source.episodes.tolist()

    def test_a_pickled_copy_is_small(self, source):
        assert source[0].answer == 'thing 0' and len(source.episodes) == 5
        assert len(pickle.dumps(source)) < 4000

    def test_opened_again_it_is_the_same(self, source, tmp_path):
        again = self.open_again(tmp_path)
        assert again.fingerprint() == source.fingerprint()
        assert again.episodes.tolist() == source.episodes.tolist()
        assert again[4].answer == 'thing 4'

    def test_the_fingerprint_is_a_sha256_that_changes_with_the_data(self, source, tmp_path):
        other = self.make_source(tmp_path / 'other', 6)
        assert len(source.fingerprint()) == len(other.fingerprint()) == 64
        assert source.fingerprint() != other.fingerprint()

    def open_again(self, folder: Path):
        """Open what make_source wrote once more."""
        raise NotImplementedError
