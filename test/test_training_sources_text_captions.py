"""Pictures with captions: a list of them, or a text file beside each."""

import json
from pathlib import Path

import pytest
from text_source_contract import TextSourceContract
from text_source_contract import write_picture

from vla_policy_node.training.sources.captions import CaptionSource
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError

PROMPTS = ('what is this',)


def open_folder(folder: Path, prompts=PROMPTS) -> CaptionSource:
    """Open a folder's pictures with the cache beside it."""
    return CaptionSource('web', folder / 'data', prompts, cache=folder / 'cache')


class TestMetadata(TextSourceContract):

    def make_source(self, folder: Path, count: int) -> CaptionSource:
        for number in range(count):
            write_picture(folder / 'data' / 'deep' / f'{number}.png', number)
        (folder / 'data' / 'metadata.jsonl').write_text('\n'.join(
            json.dumps({'file_name': f'deep/{number}.png', 'text': f'thing {number}'})
            for number in range(count)))
        return self.open_again(folder)

    def open_again(self, folder: Path) -> CaptionSource:
        return open_folder(folder)


class TestTextFiles(TextSourceContract):

    def make_source(self, folder: Path, count: int) -> CaptionSource:
        for number in range(count):
            write_picture(folder / 'data' / 'deep' / f'{number}.png', number)
            (folder / 'data' / 'deep' / f'{number}.txt').write_text(f'thing {number}\n')
        write_picture(folder / 'data' / 'without.png')
        (folder / 'data' / 'README.txt').write_text('of no picture')
        return self.open_again(folder)

    def open_again(self, folder: Path) -> CaptionSource:
        return open_folder(folder)


def test_captions_json_is_a_list_too(tmp_path):
    write_picture(tmp_path / 'data' / 'a.png', 5)
    (tmp_path / 'data' / 'captions.json').write_text('[{"file_name": "a.png", "text": "five"}]')
    assert open_folder(tmp_path)[0].answer == 'five'


def test_the_prompts_take_turns_and_a_record_keeps_its_own(tmp_path):
    source = TestMetadata().make_source(tmp_path, 4)
    source = open_folder(tmp_path, ('describe it', 'what is there'))
    assert [source[number].question for number in (0, 1, 2, 3, 1)] == [
        'describe it', 'what is there', 'describe it', 'what is there', 'what is there']


def test_captions_of_one_picture_are_one_episode(tmp_path):
    write_picture(tmp_path / 'data' / 'a.png')
    write_picture(tmp_path / 'data' / 'b.png')
    (tmp_path / 'data' / 'captions.jsonl').write_text(
        '{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "text": "two"}\n'
        '{"file_name": "a.png", "text": "three"}\n')
    first, second, third = open_folder(tmp_path).episodes.tolist()
    assert first == third != second


@pytest.mark.parametrize(('line', 'reason'), [
    ('{"image": "a.png", "text": "x"}', "expected an object with 'file_name' and 'text'"),
    ('{"file_name": "a.png", "caption": "x"}', "expected words in 'text', found None"),
    ('{"file_name": "a.png", "text": " "}', "expected words in 'text'"),
    ('{"file_name": "gone.png", "text": "x"}', 'gone.png'),
    ('{"file_name": "a\\u0000.png", "text": "x"}', 'null'),
])
def test_a_bad_line_is_a_corrupt_record_that_is_named(tmp_path, line, reason):
    write_picture(tmp_path / 'data' / 'a.png')
    (tmp_path / 'data' / 'metadata.jsonl').write_text(
        f'{line}\n{{"file_name": "a.png", "text": "fine"}}\n')
    source = open_folder(tmp_path)
    assert source[1].answer == 'fine'
    with pytest.raises(RecordError, match='metadata.jsonl, line 1') as caught:
        source[0]
    assert reason in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'', b' \n', b'\xff\xfe'])
def test_a_text_file_without_words_is_a_corrupt_record(tmp_path, content):
    write_picture(tmp_path / 'data' / 'a.png')
    (tmp_path / 'data' / 'a.txt').write_bytes(content)
    with pytest.raises(RecordError, match='a.txt'):
        open_folder(tmp_path)[0]


def test_a_folder_that_is_missing_or_without_captions_says_what_is_looked_for(tmp_path):
    with pytest.raises(SourceError, match='web: expected a folder of pictures'):
        open_folder(tmp_path)
    write_picture(tmp_path / 'data' / 'a.png')
    with pytest.raises(SourceError, match='expected metadata.jsonl, .* same name'):
        open_folder(tmp_path)
    assert list((tmp_path / 'cache').iterdir()) == []
