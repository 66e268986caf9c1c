"""Sections of vision-language sources are validated, opened and tried."""

import json
from pathlib import Path

from pydantic import TypeAdapter
from pydantic import ValidationError
import pytest
from text_source_contract import write_picture

from vla_policy_node.training.sources.opening import open_source
from vla_policy_node.training.sources.opening import SourceSection
from vla_policy_node.training.sources.records import SourceError


def open_section(folder: Path, **section):
    """Validate a section and open it under the name web."""
    return open_source('web', TypeAdapter(SourceSection).validate_python(section), horizon=1,
                       period_s=0.2, cache=folder / 'cache')


def write_chat(folder: Path) -> Path:
    """Write one conversation about pictures/a.png."""
    turns = [{'from': 'human', 'value': '<image> what'}, {'from': 'gpt', 'value': 'a thing'}]
    (folder / 'chat.json').write_text(json.dumps([{'image': 'a.png', 'conversations': turns}]))
    write_picture(folder / 'pictures' / 'a.png')
    return folder / 'chat.json'


def test_conversations_are_opened_by_their_kind(tmp_path):
    source = open_section(tmp_path, kind='conversations', path=str(write_chat(tmp_path)),
                          images=str(tmp_path / 'pictures'))
    assert (source.name, source[0].answer) == ('web', 'a thing')


def test_captions_are_opened_by_their_kind_and_described_by_default(tmp_path):
    write_picture(tmp_path / 'pictures' / 'a.png')
    (tmp_path / 'pictures' / 'a.txt').write_text('grey')
    source = open_section(tmp_path, kind='captions', path=str(tmp_path / 'pictures'))
    assert (source[0].question, source[0].answer) == ('describe the picture', 'grey')


def test_parquet_is_opened_by_its_kind(tmp_path):
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    pq.write_table(pa.table({'q': ['how'], 'a': ['so']}), tmp_path / 'x.parquet')
    source = open_section(tmp_path, kind='parquet', path=f'{tmp_path}/*.parquet', image=None,
                          question='q', answer='a')
    assert source[0].answer == 'so'


def test_the_wrong_folder_of_pictures_is_found_when_the_source_is_opened(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SourceError, match='web: .* found none among 4 of 1: .*empty/a.png'):
        open_section(tmp_path, kind='conversations', path=str(write_chat(tmp_path)),
                     images=str(tmp_path / 'empty'))


@pytest.mark.parametrize(('section', 'reason'), [
    ({'kind': 'podcast'}, 'conversations'),
    ({'kind': 'captions', 'path': 'x', 'prompts': []}, 'at least 1'),
    ({'kind': 'captions', 'path': 'x', 'prompts': [' ']}, 'pattern'),
    ({'kind': 'captions', 'path': 'x', 'prompt': 'y'}, 'not permitted'),
    ({'kind': 'parquet', 'path': 'x', 'question': 'q'}, 'columns question and answer'),
    ({'kind': 'parquet', 'path': 'x', 'question': 'q', 'answer': 'a', 'conversations': 'c'},
     'columns question and answer'),
])
def test_a_wrong_section_says_what_is_wrong(section, reason):
    with pytest.raises(ValidationError, match=reason):
        TypeAdapter(SourceSection).validate_python(section)
