"""Pictures with a caption each: text files beside them, or one list of captions."""

from collections.abc import Iterator
from collections.abc import Sequence
import hashlib
import json
import os
from pathlib import Path
from typing import Any
from typing import ClassVar

import numpy as np

from vla_policy_node.training.sources.json_lines import JsonLines
from vla_policy_node.training.sources.mapped import partial_path
from vla_policy_node.training.sources.pictures import read_picture
from vla_policy_node.training.sources.pictures import SUFFIXES
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord

# Looked for in this order; the first is the name that Hugging Face's imagefolder uses.
_LISTS = ('metadata.jsonl', 'captions.jsonl', 'captions.json')


class CaptionSource:
    """
    Each picture with its caption is a record; the question is one of the prompts.

    The prompts take turns by the record's number, so that the same record always has the same
    question. Every picture is an episode of its own.
    """

    kind: ClassVar[str] = 'text'

    def __init__(self, name: str, path: Path, prompts: Sequence[str], *, cache: Path) -> None:
        """
        Open a folder with a list of captions (file_name, text), or with a .txt per picture.

        Raises SourceError where there is neither.
        """
        if not path.is_dir():
            raise SourceError(f'{name}: expected a folder of pictures at {path}, found '
                              f'{"a file" if path.exists() else "nothing"}; mend `path`')
        self.name = name
        self._folder = path
        self._prompts = tuple(prompts)
        self._lines = JsonLines(
            _list_of_captions(path, cache), layout=caption_layout, cache=cache)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> TextRecord:
        entry, _ = self._lines.entry(index)
        where = self._lines.where(index)
        try:
            _, name = caption_layout(entry)
            answer = entry['text'] if 'text' in entry else self._read_text(entry['text_file'])
        except ValueError as error:
            raise RecordError(f'{where}: {error}') from error
        return TextRecord(
            question=self._prompts[index % len(self._prompts)], answer=answer.strip(),
            images={'image_0': read_picture(self._folder / name, where)})

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the same for captions of the same picture."""
        return self._lines.groups

    def fingerprint(self) -> str:
        """Return a sha256 over the list of captions, or over names, sizes and times of files."""
        return self._lines.fingerprint

    def _read_text(self, name: str) -> str:
        try:
            text = (self._folder / name).read_text(encoding='utf-8')
        except (OSError, ValueError) as error:  # ValueError: not UTF-8
            raise ValueError(
                f'expected a caption in {name}, found none that can be read ({error})') from error
        if not text.strip():
            raise ValueError(f'expected a caption in {name}, found an empty file')
        return text


def caption_layout(entry: Any) -> tuple[int, str]:
    """Return one record and its picture's name; ValueError where the entry is malformed."""
    if not isinstance(entry, dict) or not isinstance(entry.get('file_name'), str):
        raise ValueError(f"expected an object with 'file_name' and 'text', found {entry!r:.80}")
    text = entry.get('text', entry.get('text_file'))
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"expected words in 'text', found {text!r:.80}")
    return 1, entry['file_name']


def _list_of_captions(folder: Path, cache: Path) -> Path:
    for name in _LISTS:
        if (folder / name).is_file():
            return folder / name
    return _list_files(folder, cache)


def _list_files(folder: Path, cache: Path) -> Path:
    """
    Write the pictures that have a text file to a list of their own, for the index.

    It is named by what is in it and kept if it is there already, so that its index is found.
    """
    cache.mkdir(parents=True, exist_ok=True)
    partial = partial_path(cache / f'{folder.resolve().name}.jsonl')
    digest = hashlib.sha256()
    with partial.open('wb') as file:
        for entry in _captioned_files(folder):
            line = f'{json.dumps(entry)}\n'.encode('ascii')
            digest.update(line)
            file.write(line)
    empty = not partial.stat().st_size
    listed = cache / f'{folder.resolve().name}-{digest.hexdigest()[:16]}.jsonl'
    if empty or listed.exists():
        partial.unlink()
    else:
        partial.replace(listed)
    if empty:
        raise SourceError(
            f'{folder}: expected {", ".join(_LISTS)}, or pictures with a .txt of the same name '
            'beside them, found neither; write the captions there')
    return listed


def _captioned_files(folder: Path) -> Iterator[dict]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        present = set(names)
        for name in sorted(names):
            text = f'{Path(name).stem}.txt'
            if Path(name).suffix.lower() in SUFFIXES and text in present:
                yield _file_entry(folder, Path(parent) / name, Path(parent) / text)


def _file_entry(folder: Path, picture: Path, text: Path) -> dict:
    facts = [picture.stat().st_size, text.stat().st_size, text.stat().st_mtime_ns]
    return {'file_name': str(picture.relative_to(folder)),
            'text_file': str(text.relative_to(folder)), 'facts': facts}
