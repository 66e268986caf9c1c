"""
What must be true of a checkpoint directory before any of it is loaded.

Knows nothing of torch: a bad directory is named within milliseconds.
"""

import json
from pathlib import Path
import re
from typing import Any

from safetensors import safe_open
from safetensors import SafetensorError

from vla_policy_node.policy.openvla.derived import derive_vla_config
from vla_policy_node.policy.openvla.layout import MODEL_TYPE as OPENVLA
from vla_policy_node.policy.openvla.layout import STATISTICS_NAME
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.vla_config import CONFIG_NAME
from vla_policy_node.vla_config import VlaConfig

HUB_PREFIX = 'hf://'
# Unpickling runs code of whoever wrote the file, so these are refused even beside safetensors.
PICKLE_SUFFIXES = ('.bin', '.ckpt', '.pkl', '.pt', '.pth')
_HUB_FILES = ['*.safetensors', '*.json', '*.txt', '*.model', '*.jinja']


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """
    Return the local directory of a checkpoint; ``hf://owner/name`` is downloaded.

    Only weights in safetensors, JSON and text are fetched, never code or pickles.
    """
    if not str(checkpoint).startswith(HUB_PREFIX):
        return Path(checkpoint)
    repository = str(checkpoint)[len(HUB_PREFIX):]
    if not re.fullmatch(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*', repository):
        raise PolicyError(f'expected {HUB_PREFIX}owner/name, found {checkpoint!r}')
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise PolicyError(f'could not download {checkpoint}: {one_line(error)}') from error


def read_checkpoint(directory: Path) -> VlaConfig:
    """Check the directory's files in order and return its vla_config; raise ValueError."""
    if not directory.is_dir():
        raise PolicyError(
            f'checkpoint directory {directory} does not exist; give a directory, '
            f'or {HUB_PREFIX}owner/name for one on the Hugging Face hub'
        )
    raw = read_json(directory / 'config.json')
    original = raw.get('model_type') == OPENVLA
    if not original and not (directory / CONFIG_NAME).is_file():
        raise PolicyError(
            f'{directory} has no {CONFIG_NAME}; add one to say what its actions mean'
        )
    refuse_pickles(directory)
    for path in weight_files(directory):
        _check_safetensors(path)
    config = _derived(directory, raw) if original else VlaConfig.load(directory)
    config.verify_weights(directory)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a checkpoint must have."""
    if not path.is_file():
        raise PolicyError(
            f'{path.parent} has no {path.name}; expected a Hugging Face checkpoint directory'
        )
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PolicyError(f'{path} is not valid JSON: {error}') from error
    if not isinstance(content, dict):
        raise PolicyError(f'expected {path} to hold a JSON object, found {type(content).__name__}')
    return content


def refuse_pickles(directory: Path) -> None:
    """Raise PolicyError if the directory holds weights as a pickle."""
    pickles = [path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise PolicyError(
            f'{directory} holds pickle files ({", ".join(sorted(pickles))}), which can run code '
            'when loaded; convert the weights to safetensors and remove these files'
        )


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, each of which exists."""
    index = directory / 'model.safetensors.index.json'
    names = {'model.safetensors'}
    if index.is_file():
        names = set(read_json(index).get('weight_map', {}).values()) or names
    paths = [directory / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise PolicyError(f'{directory} lacks weights: no {", ".join(missing)}')
    return paths


def one_line(error: Exception) -> str:
    """Return an error's text on one line."""
    return ' '.join(str(error).split()) or type(error).__name__


def _derived(directory: Path, raw: dict[str, Any]) -> VlaConfig:
    """Return what an original OpenVLA directory says, and a vla_config.json beside it."""
    paths = (directory / STATISTICS_NAME, directory / CONFIG_NAME)
    return derive_vla_config(raw, *(read_json(p) if p.is_file() else None for p in paths))


def _check_safetensors(path: Path) -> None:
    """Raise PolicyError unless the file's header and length agree."""
    try:
        with safe_open(path, framework='np'):
            pass
    except (SafetensorError, OSError) as error:
        raise PolicyError(
            f'{path} is not a readable safetensors file ({error}); copy or download it again'
        ) from error
