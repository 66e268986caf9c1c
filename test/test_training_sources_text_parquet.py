"""Questions about pictures in parquet files."""

import io
from pathlib import Path

from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from text_source_contract import TextSourceContract
from text_source_contract import write_picture

from vla_policy_node.training.sources.parquet import ParquetColumns
from vla_policy_node.training.sources.parquet import ParquetSource
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.row_groups import RowGroups

COLUMNS = ParquetColumns(image='image', question='question', answer='answer')


def png(level: int) -> bytes:
    """Return an encoded picture of one grey level, 6 high and 8 wide."""
    data = io.BytesIO()
    Image.new('RGB', (8, 6), (level,) * 3).save(data, 'png')
    return data.getvalue()


def write(path: Path, **columns) -> None:
    """Write a table in row groups of two rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)


def open_files(folder: Path, columns: ParquetColumns = COLUMNS) -> ParquetSource:
    """Open all files of a folder."""
    return ParquetSource('web', f'{folder}/*.parquet', columns, None, cache=folder / 'cache')


class _Contract(TextSourceContract):

    def image(self, folder: Path, number: int):
        raise NotImplementedError

    def make_source(self, folder: Path, count: int) -> ParquetSource:
        for name, numbers in (('a', range(3)), ('b', range(3, count))):
            write(folder / f'{name}.parquet', question=['<image> what\nis this'] * len(numbers),
                  answer=[f'thing {number}' for number in numbers],
                  image=[self.image(folder, number) for number in numbers])
        return self.open_again(folder)

    def open_again(self, folder: Path) -> ParquetSource:
        return open_files(folder)


class TestBytes(_Contract):

    def image(self, folder: Path, number: int):
        return png(number)


class TestPath(_Contract):

    def image(self, folder: Path, number: int):
        write_picture(folder / f'{number}.png', number)
        return f'{number}.png'


class TestStruct(_Contract):

    def image(self, folder: Path, number: int):
        return {'bytes': png(number), 'path': f'{number}.png'}


class TestStructWithPathsThatNameNothing(_Contract):

    def image(self, folder: Path, number: int):
        return {'bytes': png(number), 'path': 'image.png'}


class TestListOfStructs(_Contract):

    def image(self, folder: Path, number: int):
        return [{'bytes': png(number), 'path': None}]


def test_questions_about_the_same_picture_are_one_episode(tmp_path):
    write(tmp_path / 'a.parquet', question=['a', 'b', 'c'], answer=['x', 'y', 'z'], image=[
        {'bytes': png(1), 'path': name} for name in ('one.png', 'two.png', 'one.png')])
    first, second, third = open_files(tmp_path).episodes.tolist()
    assert first == third != second


def test_a_list_of_turns_gives_a_record_per_question(tmp_path):
    turns = [{'from': 'human', 'value': '<image>\nwho'}, {'from': 'gpt', 'value': 'me'},
             {'from': 'human', 'value': 'where'}, {'from': 'gpt', 'value': 'here'}]
    write(tmp_path / 'a.parquet', talk=[turns, turns[:2], turns[:1]],
          image=[png(1), png(2), png(3)])
    source = open_files(tmp_path, ParquetColumns(image='image', conversations='talk'))
    assert [(source[number].question, source[number].answer) for number in range(3)] == [
        ('who', 'me'), ('where', 'here'), ('who', 'me')]
    assert source.episodes.tolist() == [0, 0, 1, 2]
    with pytest.raises(RecordError, match=r'row group 1, row 0: expected turns'):
        source[3]


def test_questions_may_be_without_pictures(tmp_path):
    write(tmp_path / 'a.parquet', q=['how'], a=['so'])
    record = open_files(tmp_path, ParquetColumns(image=None, question='q', answer='a'))[0]
    assert (record.question, record.answer, record.images) == ('how', 'so', {})


@pytest.mark.parametrize(('row', 'reason'), [
    ({'question': None, 'answer': 'x', 'image': png(1)}, 'found an empty one'),
    ({'question': 'x', 'answer': '', 'image': png(1)}, 'found an empty one'),
    ({'question': 'x', 'answer': 'x', 'image': b'not a picture'}, '13 bytes'),
    ({'question': 'x', 'answer': 'x', 'image': png(1)[:-30]}, 'cannot be decoded'),
])
def test_a_bad_row_is_a_corrupt_record_that_names_file_and_row(tmp_path, row, reason):
    write(tmp_path / 'a.parquet', question=['a', row['question']], answer=['b', row['answer']],
          image=[png(0), row['image']])
    source = open_files(tmp_path)
    assert source[0].answer == 'b'
    with pytest.raises(RecordError, match='a.parquet, row group 0, row 1') as caught:
        source[1]
    assert reason in str(caught.value) and '\n' not in str(caught.value)


def test_a_damaged_row_group_is_corrupt_records_and_the_rest_is_read(tmp_path):
    pictures = [png(number) * 200 for number in range(4)]
    write(tmp_path / 'a.parquet', question=['q'] * 4, answer=['a'] * 4, image=pictures)
    data = bytearray((tmp_path / 'a.parquet').read_bytes())
    start = pq.ParquetFile(tmp_path / 'a.parquet').metadata.row_group(1).column(0).data_page_offset
    data[start:start + 200] = b'\xff' * 200
    (tmp_path / 'a.parquet').write_bytes(data)
    source = open_files(tmp_path)
    assert source[0].answer == 'a'
    with pytest.raises(RecordError, match='row group 1, row 0: expected readable data'):
        source[2]


@pytest.mark.parametrize(('columns', 'reason'), [
    ({'image': [b''], 'frage': ['x'], 'answer': ['y']},
     r"expected columns \['question'\], found \['image', 'frage', 'answer'\]"),
    ({'image': [b''], 'question': ['x'], 'answer': [3]}, "text in column 'answer', found int64"),
    ({'image': [3], 'question': ['x'], 'answer': ['y']}, "in column 'image', found int64"),
])
def test_columns_that_are_missing_or_of_another_type_are_refused(tmp_path, columns, reason):
    write(tmp_path / 'a.parquet', **columns)
    with pytest.raises(SourceError, match=reason):
        open_files(tmp_path)


def test_no_files_no_rows_and_other_files_are_refused(tmp_path):
    with pytest.raises(SourceError, match='web: expected parquet files at .*, found none'):
        open_files(tmp_path)
    write(tmp_path / 'a.parquet', image=pa.array([], pa.binary()),
          question=pa.array([], pa.string()), answer=pa.array([], pa.string()))
    with pytest.raises(SourceError, match='web: expected at least one row'):
        open_files(tmp_path)
    (tmp_path / 'b.parquet').write_text('no')
    with pytest.raises(SourceError, match='b.parquet: expected a parquet file'):
        open_files(tmp_path)


def test_only_the_last_row_groups_are_kept(tmp_path):
    write(tmp_path / 'a.parquet', q=['how'] * 40, a=[f'{number}' for number in range(40)])
    groups = RowGroups([tmp_path / 'a.parquet'], ['q', 'a'])
    assert [groups.row(number)[0]['a'] for number in range(40)] == [
        f'{number}' for number in range(40)]
    assert groups.kept == list(range(12, 20))
    groups.row(25)
    assert groups.kept == [13, 14, 15, 16, 17, 18, 19, 12]
