"""Conversations in LLaVA's form, as JSONL and as one JSON list."""

import json
from pathlib import Path
import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
from text_source_contract import TextSourceContract
from text_source_contract import write_picture

from vla_policy_node.training.sources import json_array
from vla_policy_node.training.sources.conversations import ConversationSource
from vla_policy_node.training.sources.json_lines import JsonLines
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError


def entry(*words: str, **fields) -> dict:
    """Return an entry whose turns are the human's and the model's, one after the other."""
    speakers = ('human', 'gpt') * len(words)
    return {'conversations': [
        {'from': speaker, 'value': value} for speaker, value in zip(speakers, words, strict=False)
    ], **fields}


def entries(folder: Path, count: int) -> list[dict]:
    """Write a picture per entry and return the entries."""
    for number in range(count):
        write_picture(folder / f'{number}.png', number)
    return [entry('<image>\nwhat is this', f'thing {number}', image=f'{number}.png')
            for number in range(count)]


def open_lines(folder: Path, *lines: dict | str) -> ConversationSource:
    """Write lines and open them."""
    path = folder / 'chat.jsonl'
    path.write_text('\n'.join(
        line if isinstance(line, str) else json.dumps(line) for line in lines))
    return ConversationSource('web', path, None, cache=folder / 'cache')


class TestLines(TextSourceContract):

    def make_source(self, folder: Path, count: int) -> ConversationSource:
        folder.mkdir(exist_ok=True)
        return open_lines(folder, *entries(folder, count))

    def open_again(self, folder: Path) -> ConversationSource:
        return ConversationSource('web', folder / 'chat.jsonl', None, cache=folder / 'cache')


class TestOneList(TextSourceContract):

    def make_source(self, folder: Path, count: int) -> ConversationSource:
        listed = entries(folder / 'pictures', count)
        (folder / 'chat.json').write_text(json.dumps(listed, indent=1))
        return self.open_again(folder)

    def open_again(self, folder: Path) -> ConversationSource:
        return ConversationSource(
            'web', folder / 'chat.json', folder / 'pictures', cache=folder / 'cache')


def test_each_question_of_a_conversation_is_a_record_without_the_turns_before(tmp_path):
    source = open_lines(tmp_path, entry('hello', 'hi', 'and\nnow?', 'still'), entry('who', 'me'))
    assert [(record.question, record.answer, record.images) for record in map(
        source.__getitem__, range(3))] == [
            ('hello', 'hi', {}), ('and now?', 'still', {}), ('who', 'me', {})]
    assert source.episodes.tolist() == [1, 1, 2]


def test_every_question_about_a_picture_gets_it_and_they_are_one_episode(tmp_path):
    write_picture(tmp_path / 'a.png', 7)
    write_picture(tmp_path / 'b.png', 9)
    source = open_lines(
        tmp_path, entry('<image> what', 'a', 'which', 'b', image='a.png'),
        entry('<image><image> more', 'c', image=['b.png', 'a.png']),
        entry('<image> again', 'd', image='a.png'))
    assert [list(source[number].images) for number in range(4)] == [
        ['image_0'], ['image_0'], ['image_0', 'image_1'], ['image_0']]
    assert [int(picture[0, 0, 0]) for picture in source[2].images.values()] == [9, 7]
    first, second, third, fourth = source.episodes.tolist()
    assert first == second == fourth != third


@pytest.mark.parametrize(('line', 'reason'), [
    ('{"conversations": [', 'expected JSON'),
    ('{"text": "x"}', "found one with ['text']"),
    ('[1]', "expected an object with 'conversations', found [1]"),
    (entry('only a question'), "found ['human']"),
    (entry('a', ''), 'found an empty one'),
    (entry('<image>', 'a', image='here.png'), 'found an empty one'),
    (entry('<image> a', 'b'), "expected 'image' in an entry that says <image>"),
    (entry('a', 'b', image=3), "in 'image', found 3"),
    (entry('a', 'b', image='missing.png'), 'expected a picture at'),
    (entry('a', 'b', image='broken.png'), 'cannot be decoded'),
    ({'conversations': [{'from': 'human'}]}, "'from' and 'value', found one with ['from']"),
])
def test_a_bad_line_is_a_corrupt_record_that_names_file_line_and_reason(tmp_path, line, reason):
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n not quite')
    source = open_lines(tmp_path, entry('a', 'b'), '', line, entry('c', 'd'))
    assert len(source) == 3 and source[2].answer == 'd'
    with pytest.raises(RecordError) as caught:
        source[1]
    message = str(caught.value)
    assert reason in message and 'chat.jsonl, line 3' in message and '\n' not in message


@pytest.mark.parametrize(('content', 'reason'), [
    (b'', 'the file is empty'),
    (b'\n\n', 'the file is empty'),
    (b'{"a": 1}\n{"b": 2}', "at line 1: expected an object with 'conversations'"),
    (b'[]', 'the file is empty'),
    (b'[{"a": 1}, {"b"', 'after 1 elements'),
    (b'[{"a": 1} {"b": 2}]', "instead of ','"),
    (b'[1, 2]', 'instead of an object after 0 elements'),
    (b'[{"a": "\xff"}]', 'utf-8'),
])
def test_a_file_without_a_usable_record_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / 'chat.json').write_bytes(content)
    with pytest.raises(SourceError) as caught:
        ConversationSource('web', tmp_path / 'chat.json', None, cache=tmp_path / 'cache')
    assert reason in str(caught.value) and 'chat.json' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_missing_file_and_a_missing_folder_of_pictures_are_named(tmp_path):
    with pytest.raises(SourceError, match='expected a file at .*none.json, found nothing'):
        ConversationSource('web', tmp_path / 'none.json', None, cache=tmp_path)
    with pytest.raises(SourceError, match='web: expected a folder of pictures at .*pics'):
        ConversationSource('web', tmp_path / 'none.json', tmp_path / 'pics', cache=tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / 'chat.jsonl').write_bytes(b'\xef\xbb\xbf' + json.dumps(entry('a', 'b')).encode())
    source = ConversationSource('web', tmp_path / 'chat.jsonl', None, cache=tmp_path / 'cache')
    assert source[0].answer == 'b'


def test_a_file_that_was_changed_is_indexed_again(tmp_path):
    assert len(open_lines(tmp_path, entry('a', 'b'))) == 1
    assert len(open_lines(tmp_path, entry('a', 'b'), entry('c', 'd'))) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5), inner, max_size=3), max_leaves=8)


@settings(max_examples=40, deadline=None)
@given(listed=st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), max_size=6),
       indent=st.none() | st.integers(0, 3), ascii_only=st.booleans(), chunk=st.integers(1, 9))
def test_a_list_read_in_pieces_is_the_list(tmp_path_factory, listed, indent, ascii_only, chunk):
    path = tmp_path_factory.mktemp('list') / 'list.json'
    text = json.dumps(listed, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode('utf-8', 'replace' if not ascii_only else 'strict'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, '_CHUNK', chunk)
        assert list(json_array.array_entries(path)) == json.loads(path.read_text('utf-8'))


def one_each(entry: object) -> tuple[int, str]:
    """Lay out every entry as one record."""
    return 1, ''


@pytest.mark.slow
def test_indexing_200000_lines_takes_less_than_2_mb(tmp_path):
    path = tmp_path / 'lines.jsonl'
    path.write_text(''.join(f'{{"n": {number}}}\n' for number in range(200_000)))
    tracemalloc.start()
    lines = JsonLines(path, layout=one_each, cache=tmp_path / 'cache')
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(lines) == 200_000 and lines.entry(199_999) == ({'n': 199_999}, 0)
    assert peak < 2e6 and kept < 3e5


def test_a_list_of_20_mb_is_rewritten_in_less_than_8_mb(tmp_path):
    path = tmp_path / 'chat.json'
    path.write_text(json.dumps([
        entry('what is it', f'{number} {"word " * 4000}') for number in range(1000)]))
    tracemalloc.start()
    source = ConversationSource('web', path, None, cache=tmp_path / 'cache')
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20e6 and peak < 8e6
    assert source[999].answer.startswith('999 word')
