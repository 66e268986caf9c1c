"""Questions about pictures in parquet files, as data sets on the Hugging Face Hub are kept."""

from collections.abc import Iterator
from dataclasses import dataclass
import glob
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vla_policy_node.training.sources.conversations import check_words
from vla_policy_node.training.sources.conversations import plain_question
from vla_policy_node.training.sources.conversations import turn_pairs
from vla_policy_node.training.sources.json_lines import group_number
from vla_policy_node.training.sources.mapped import MappedTable
from vla_policy_node.training.sources.mapped import write_table
from vla_policy_node.training.sources.pictures import decode_picture
from vla_policy_node.training.sources.pictures import read_picture
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.training.sources.row_groups import footer_digest
from vla_policy_node.training.sources.row_groups import open_parquet
from vla_policy_node.training.sources.row_groups import RowGroups

# row: over all files; group: number of the picture or row; unit: which question of the row.
_ROW = np.dtype([('row', '<i8'), ('group', '<i8'), ('unit', '<i8')])
_INDEX_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetColumns:
    """
    Which columns hold what; None for none.

    image: encoded bytes, a path, Hugging Face's struct of both, or a list of these. Either
    question and answer (text), or conversations (a list of structs `from` and `value`).
    """

    image: str | None
    question: str | None = None
    answer: str | None = None
    conversations: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        every = (self.image, self.question, self.answer, self.conversations)
        return [name for name in every if name is not None]


class ParquetSource:
    """
    Rows of parquet files by number; row groups are read whole and the last few are kept.

    A drawn row costs the reading of its row group, unless that is one of those kept: small row
    groups are read fastest in random order.
    """

    kind: ClassVar[str] = 'text'

    def __init__(self, name: str, pattern: str, columns: ParquetColumns, images: Path | None, *,
                 cache: Path) -> None:
        """
        Index the files that match a glob; paths of pictures are relative to `images`.

        By default they are relative to the folder of the first file. Raises SourceError for
        no files, no rows, missing columns and columns of another type.
        """
        paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
        if not paths:
            raise SourceError(f'{name}: expected parquet files at {pattern}, found none; mend '
                              '`path`')
        for path in paths:
            _check_columns(path, columns)
        self.name = name
        self._columns = columns
        self._images = paths[0].parent if images is None else images
        self._groups = RowGroups(paths, columns.names)
        if not len(self._groups):
            raise SourceError(f'{name}: expected at least one row in {pattern}, found none')
        self._fingerprint = _fingerprint(paths, columns)
        self._index = _index(self._groups, columns, cache / f'{name}-{self._fingerprint[:16]}')

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> TextRecord:
        row = self._index.rows[index]
        values, where = self._groups.row(int(row['row']))
        try:
            pairs = _pairs(values, self._columns)
        except ValueError as error:
            raise RecordError(f'{where}: {error}') from error
        question, answer = pairs[int(row['unit'])]
        pictures = values[self._columns.image] if self._columns.image else None
        pictures = pictures if isinstance(pictures, list) else [pictures]
        return TextRecord(question=question, answer=answer, images={
            f'image_{number}': self._picture(picture, where)
            for number, picture in enumerate(pictures) if picture is not None})

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the same for rows whose pictures have the same path, or each row."""
        groups = self._index.rows['group']
        if (groups == groups[0]).all():  # a path that names nothing, such as 'image.jpg'
            return np.arange(len(groups))
        return groups

    def fingerprint(self) -> str:
        """Return a sha256 over sizes and footers of the files and the columns' names."""
        return self._fingerprint

    def _picture(self, value: bytes | str | dict, where: str) -> np.ndarray:
        if isinstance(value, dict):
            value = value.get('path') if value.get('bytes') is None else value['bytes']
        if isinstance(value, bytes):
            return decode_picture(value, where)
        if value is None:
            raise RecordError(f'{where}: expected bytes or a path of a picture, found neither')
        return read_picture(self._images / value, where)


def _pairs(values: dict, columns: ParquetColumns) -> list[tuple[str, str]]:
    if columns.conversations is not None:
        return turn_pairs(values[columns.conversations] or [])
    pairs = [(plain_question(values[columns.question] or ''),
              (values[columns.answer] or '').strip())]
    check_words(pairs)
    return pairs


def _check_columns(path: Path, columns: ParquetColumns) -> None:
    schema = open_parquet(path).schema_arrow
    missing = [name for name in columns.names if name not in schema.names]
    if missing:
        raise SourceError(f'{path}: expected columns {missing}, found {schema.names}; name '
                          'yours in the source')
    wanted = [(columns.question, _is_text, 'text'), (columns.answer, _is_text, 'text'),
              (columns.image, _is_picture, 'bytes, a path, a struct of bytes and path, or a list'),
              (columns.conversations, _is_conversation, "a list of structs 'from' and 'value'")]
    for name, fits, what in wanted:
        if name is not None and not fits(schema.field(name).type):
            raise SourceError(f'{path}: expected {what} in column {name!r}, found '
                              f'{schema.field(name).type}')


def _is_text(kind: pa.DataType) -> bool:
    return (pa.types.is_string(kind) or pa.types.is_large_string(kind)
            or (pa.types.is_dictionary(kind) and _is_text(kind.value_type)))


def _is_picture(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_picture(kind.value_type)
    if pa.types.is_struct(kind):
        return bool({'bytes', 'path'} & {field.name for field in kind})
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_text(kind)


def _is_conversation(kind: pa.DataType) -> bool:
    return ((pa.types.is_list(kind) or pa.types.is_large_list(kind))
            and pa.types.is_struct(kind.value_type)
            and {'from', 'value'} <= {field.name for field in kind.value_type})


def _fingerprint(paths: list[Path], columns: ParquetColumns) -> str:
    digest = hashlib.sha256(f'{_INDEX_VERSION} {columns}'.encode())
    for path in paths:
        digest.update(footer_digest(path))
    return digest.hexdigest()


def _index(groups: RowGroups, columns: ParquetColumns, stem: Path) -> MappedTable:
    path = stem.with_name(f'{stem.name}.index')
    return MappedTable(path, _ROW) if path.exists() else write_table(
        path, _ROW, _index_rows(groups, columns))


def _index_rows(groups: RowGroups, columns: ParquetColumns) -> Iterator[tuple]:
    """Yield a row of the index per question, reading neither pictures nor plain questions."""
    about = _path_column(groups.schema, columns.image)
    names = [name for name in (about, columns.conversations) if name is not None]
    for row, values in groups.scan(names):
        picture = values.get(columns.image)
        path = picture['path'] if isinstance(picture, dict) else picture
        group = group_number(path) if path else row
        for unit in range(_questions(values, columns)):
            yield row, group, unit


def _questions(values: dict, columns: ParquetColumns) -> int:
    """Return how many records a row holds; a malformed one is kept, to be found corrupt."""
    if columns.conversations is None:
        return 1
    try:
        return len(_pairs(values, columns))
    except ValueError:
        return 1


def _path_column(schema: pa.Schema, image: str | None) -> str | None:
    """Return the column with the pictures' paths, None where there are only bytes or lists."""
    kind = None if image is None else schema.field(image).type
    if kind is not None and _is_text(kind):
        return image
    if kind is not None and pa.types.is_struct(kind) and kind.get_field_index('path') >= 0:
        return f'{image}.path'
    return None
