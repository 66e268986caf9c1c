"""
The configuration of vision-language sources, one section per kind, and the opening of a section.

All paths are relative to the current directory. Knows neither torch nor file formats.
"""

from pathlib import Path
from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.records import SourceError

Words = Annotated[str, Field(min_length=1, pattern=r'\S')]

# So many records, evenly spread, are tried when a source is opened.
_PROBES = 4


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class ConversationsSection(_Section):
    """
    Conversations in LLaVA's form, .jsonl or one .json list.

    images: the folder that picture names are relative to; by default the file's own.
    """

    kind: Literal['conversations']
    path: Path
    images: Path | None = None


class ParquetSection(_Section):
    """
    Parquet files; path may have wildcards, the others name columns.

    image: encoded bytes, a path, Hugging Face's struct of both, or a list of these; null for
    questions without pictures. conversations instead of question and answer: a list of structs
    `from` and `value`. images: the folder that paths of pictures are relative to.
    """

    kind: Literal['parquet']
    path: Words
    image: Words | None = 'image'
    question: Words | None = None
    answer: Words | None = None
    conversations: Words | None = None
    images: Path | None = None

    @model_validator(mode='after')
    def _check_columns(self) -> 'ParquetSection':
        plain = [self.question is not None, self.answer is not None]
        given = [*plain, self.conversations is not None]
        if given not in ([True, True, False], [False, False, True]):
            raise ValueError('expected the columns question and answer, or conversations, found '
                             f'question {self.question}, answer {self.answer}, conversations '
                             f'{self.conversations}')
        return self


class CaptionsSection(_Section):
    """
    A folder of pictures with metadata.jsonl (file_name, text), captions.json(l), or .txt files.

    prompts: the questions that captions answer; they take turns.
    """

    kind: Literal['captions']
    path: Path
    prompts: tuple[Words, ...] = Field(('describe the picture',), min_length=1)


TextSection = ConversationsSection | ParquetSection | CaptionsSection


def open_text_source(name: str, section: TextSection, *, cache: Path) -> Source:
    """
    Open a source of questions and answers; a few records are read to see that it can be done.

    cache: folder for indices, made once. Raises SourceError where the data cannot be used.
    """
    source = _open(name, section, cache)
    _probe(source)
    return source


def _open(name: str, section: TextSection, cache: Path) -> Source:
    # Imported where they are used: conversations need no pyarrow.
    if isinstance(section, ConversationsSection):
        from vla_policy_node.training.sources.conversations import ConversationSource
        return ConversationSource(name, section.path, section.images, cache=cache)
    if isinstance(section, CaptionsSection):
        from vla_policy_node.training.sources.captions import CaptionSource
        return CaptionSource(name, section.path, section.prompts, cache=cache)
    from vla_policy_node.training.sources.parquet import ParquetColumns
    from vla_policy_node.training.sources.parquet import ParquetSource
    columns = ParquetColumns(image=section.image, question=section.question,
                             answer=section.answer, conversations=section.conversations)
    return ParquetSource(name, section.path, columns, section.images, cache=cache)


def _probe(source: Source) -> None:
    """Raise SourceError where none of a few records can be read: a wrong folder, mostly."""
    trouble = None
    for number in range(_PROBES):
        try:
            source[number * len(source) // _PROBES]
            return
        except RecordError as error:
            trouble = trouble or error
    raise SourceError(f'{source.name}: expected usable records, found none among {_PROBES} of '
                      f'{len(source)}: {trouble}') from trouble
