"""Reads configurations: YAML files, and what pydantic has to say about them in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
import yaml

_SHOWN_CHARACTERS = 60


def read_mapping(path: Path, *, examples: str) -> Mapping[str, Any]:
    """
    Return the keys and values of a YAML file; ValueError with one line otherwise.

    examples: folder with files of this kind, for the error.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ValueError(f'{path}: expected a configuration, found '
                         f'{error.strerror or error}; give a YAML file') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f'{path}: expected YAML, found {" ".join(str(error).split())}; correct it') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path}: expected keys and values, found {type(content).__name__}; '
                         f'see {examples} for examples')
    return content


def one_line(where: Path, error: ValidationError) -> str:
    """Return the first fault of a configuration with its key, and how many more there are."""
    errors = error.errors(include_url=False)
    first = errors[0]
    key = '.'.join(str(part) for part in first['loc']) or 'the file'
    wanted = first['msg'].removeprefix('Value error, ').replace('\n', ' ')
    found = ''
    if first['type'] not in ('missing', 'value_error'):
        shown = repr(first['input'])
        cut = shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS - 3] + '...'
        found = f', found {cut}'
    more = f' ({len(errors) - 1} more faults)' if len(errors) > 1 else ''
    return f'{where}: {key}: {wanted}{found}{more}; correct this key'
