"""Conversations about pictures in LLaVA's form, as JSONL or as one JSON list."""

from pathlib import Path
import re
from typing import Any
from typing import ClassVar

import numpy as np

from vla_policy_node.training.sources.json_lines import JsonLines
from vla_policy_node.training.sources.pictures import read_picture
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord

_IMAGE_MARK = '<image>'


class ConversationSource:
    """
    Each question with the answer that follows it is a record, with the entry's pictures.

    Earlier turns are left out: execution asks one question at a time, so that is what is trained.
    Entries without `image` are records without pictures. Records about the same (first) picture
    are of one episode, so that a split does not ask about pictures that were trained on.
    """

    kind: ClassVar[str] = 'text'

    def __init__(self, name: str, path: Path, images: Path | None, *, cache: Path) -> None:
        """
        Index `path`; picture names are relative to `images`, by default the file's own folder.

        Raises SourceError for a missing folder and for a file without any usable record.
        """
        if images is not None and not images.is_dir():
            raise SourceError(f'{name}: expected a folder of pictures at {images}, found '
                              f'{"a file" if images.exists() else "nothing"}; mend `images`')
        self.name = name
        self._images = path.parent if images is None else images
        self._lines = JsonLines(path, layout=conversation_layout, cache=cache)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> TextRecord:
        entry, turn = self._lines.entry(index)
        where = self._lines.where(index)
        try:
            question, answer = question_answer_pairs(entry)[turn]
            pictures = _picture_names(entry)
        except ValueError as error:
            raise RecordError(f'{where}: {error}') from error
        return TextRecord(question=question, answer=answer, images={
            f'image_{number}': read_picture(self._images / picture, where)
            for number, picture in enumerate(pictures)})

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the same for records about the same picture."""
        return self._lines.groups

    def fingerprint(self) -> str:
        """Return a sha256 over the file of conversations; pictures are not read."""
        return self._lines.fingerprint


def conversation_layout(entry: Any) -> tuple[int, str]:
    """Return how many questions an entry holds and its first picture ('' for none)."""
    pictures = _picture_names(entry)
    return len(question_answer_pairs(entry)), pictures[0] if pictures else ''


def question_answer_pairs(entry: Any) -> list[tuple[str, str]]:
    """Return (question, answer) of each turn of an entry; ValueError where it is malformed."""
    turns = entry.get('conversations') if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        raise ValueError(f"expected an object with 'conversations', found {_keys(entry)}")
    pairs = turn_pairs(turns)
    if any(_IMAGE_MARK in str(turn['value']) for turn in turns) and not _picture_names(entry):
        raise ValueError(f"expected 'image' in an entry that says {_IMAGE_MARK}, found "
                         f'{_keys(entry)}')
    return pairs


def turn_pairs(turns: list) -> list[tuple[str, str]]:
    """
    Return (question, answer) for each human turn and the gpt turn that follows it.

    Image marks are left out, since the prompt template says where pictures stand; a question's
    lines become one, as execution asks it. ValueError where a turn is missing, malformed or empty.
    """
    spoken = [_speaker_and_words(turn) for turn in turns]
    spoken = [turn for turn in spoken if turn[0] != 'system']
    speakers = [speaker for speaker, _ in spoken]
    if not spoken or speakers != ['human', 'gpt'] * (len(spoken) // 2):
        raise ValueError("expected turns from 'human' and 'gpt' one after the other, found "
                         f'{speakers[:6]}')
    pairs = [(plain_question(question), answer.strip())
             for (_, question), (_, answer) in zip(spoken[::2], spoken[1::2], strict=True)]
    check_words(pairs)
    return pairs


def plain_question(text: str) -> str:
    """Return a question as one line without image marks."""
    return ' '.join(re.sub(_IMAGE_MARK, ' ', text).split())


def check_words(pairs: list[tuple[str, str]]) -> None:
    """Raise ValueError where a question or an answer has no words."""
    if not all(question and answer for question, answer in pairs):
        raise ValueError('expected words in every question and answer, found an empty one')


def _speaker_and_words(turn: Any) -> tuple[str, str]:
    try:
        speaker, words = turn['from'], turn['value']
    except (TypeError, KeyError) as error:
        raise ValueError("expected turns with 'from' and 'value', found "
                         f'{_keys(turn)}') from error
    if not isinstance(speaker, str) or not isinstance(words, str):
        raise ValueError(f"expected text in 'from' and 'value', found {turn!r:.80}")
    return speaker, words


def _picture_names(entry: dict) -> list[str]:
    """Return the pictures of an entry: one name, a list of them, or none."""
    image = entry.get('image') if isinstance(entry, dict) else None
    names = [image] if isinstance(image, str) else image or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected one file name or a list of them in 'image', found "
                         f'{image!r:.80}')
    return names


def _keys(value: Any) -> str:
    return f'one with {sorted(value)}' if isinstance(value, dict) else f'{value!r:.80}'
