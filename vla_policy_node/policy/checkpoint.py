"""
What must be true of a checkpoint directory before any of it is loaded.

Knows nothing of torch: a bad directory is named within milliseconds.
"""

import json
from pathlib import Path
import re
from typing import Any

from vla_policy_node.policy.config_check import check_model_config
from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.folder_check import check_folder
from vla_policy_node.policy.openvla.derived import derive_vla_config
from vla_policy_node.policy.openvla.layout import MODEL_TYPE as OPENVLA
from vla_policy_node.policy.openvla.layout import STATISTICS_NAME
from vla_policy_node.policy.shards import check_shards
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.vla_config import CONFIG_NAME
from vla_policy_node.vla_config import VlaConfig

HUB_PREFIX = 'hf://'
_HUB_ID = r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*'
_WEIGHTS_NAME = 'model.safetensors'
_INDEX_NAME = 'model.safetensors.index.json'
_ADAPTER_NAME = 'adapter_config.json'
# In bytes, on any of the usual file systems.
_LONGEST_NAME = 255
_HUB_FILES = ['*.safetensors', '*.json', '*.txt', '*.model', '*.jinja']


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """
    Return the local directory of a checkpoint.

    ``hf://owner/name``, or ``owner/name`` where there is no such directory, is looked up on the
    Hugging Face hub; without a network, in what was downloaded before. Only weights in
    safetensors, JSON and text are fetched, never code or pickles.
    """
    repository = hub_id(checkpoint)
    if repository is None:
        return Path(checkpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise PolicyError(
            f'{checkpoint} is no directory here, and could not be downloaded from the Hugging '
            f'Face hub: {one_line(error)}') from error


def hub_id(checkpoint: str | Path) -> str | None:
    """Return the ``owner/name`` that a checkpoint stands for, None if it is a directory."""
    text = str(checkpoint)
    repository = text.removeprefix(HUB_PREFIX)
    is_id = re.fullmatch(_HUB_ID, repository) is not None
    if repository != text and not is_id:
        raise PolicyError(f'expected {HUB_PREFIX}owner/name, found {text!r}')
    return repository if repository != text or (is_id and not Path(text).exists()) else None


def checkpoint_name(checkpoint: str | Path) -> str:
    """Return the name of a checkpoint for people: the hub's, or that of its directory."""
    return hub_id(checkpoint) or Path(checkpoint).resolve().name


def read_checkpoint(directory: Path) -> VlaConfig:
    """Check the directory's files in order and return its vla_config; raise ValueError."""
    if not directory.is_dir():
        raise PolicyError(
            f'checkpoint directory {directory} does not exist; give a directory, '
            f'or {HUB_PREFIX}owner/name for one on the Hugging Face hub'
        )
    check_folder(directory)
    raw = read_json(directory / 'config.json')
    original = raw.get('model_type') == OPENVLA
    if not original and not (directory / CONFIG_NAME).is_file():
        raise PolicyError(
            f'{directory} has no {CONFIG_NAME}; add one to say what its actions mean'
        )
    _refuse_adapter(directory)
    check_model_config(raw, check_shards(weight_files(directory), _weight_map(directory)))
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
    except (ValueError, RecursionError) as error:  # Python refuses endless numbers as well.
        raise PolicyError(f'{path} is not valid JSON: {error}') from error
    if not isinstance(content, dict):
        raise PolicyError(f'expected {path} to hold a JSON object, found {type(content).__name__}')
    return content


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, each of which exists."""
    names = set(_weight_map(directory).values()) or {_WEIGHTS_NAME}
    paths = [directory / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise PolicyError(f'{directory} lacks weights: no {", ".join(missing)}')
    return paths


def _weight_map(directory: Path) -> dict[str, str]:
    """Return {tensor: name of its file} as the index of the shards says, {} without an index."""
    path = directory / _INDEX_NAME
    if not path.is_file():
        return {}
    found = read_json(path).get('weight_map')
    if not isinstance(found, dict) or not all(
            isinstance(name, str) and _is_plain(name) for name in found.values()):
        raise PolicyError(f'expected weight_map of {path} to give the file of every tensor, by '
                          'its plain name; copy or download it again')
    # Beside an index, transformers would take the single file and never look at the shards.
    if (directory / _WEIGHTS_NAME).is_file() and set(found.values()) - {_WEIGHTS_NAME}:
        raise PolicyError(
            f'{directory} holds both {_WEIGHTS_NAME} and shards with {_INDEX_NAME}; remove those '
            'that are not meant')
    return found


def _is_plain(name: str) -> bool:
    return Path(name).name == name and 0 < len(name.encode(errors='replace')) <= _LONGEST_NAME


def _refuse_adapter(directory: Path) -> None:
    """Raise PolicyError where transformers would add an adapter's weights to the model's."""
    if (directory / _ADAPTER_NAME).is_file():
        raise PolicyError(
            f'{directory} holds {_ADAPTER_NAME}, an adapter that would be added to the weights; '
            'merge it into them if that is not done yet, and remove the file')


def _derived(directory: Path, raw: dict[str, Any]) -> VlaConfig:
    """Return what an original OpenVLA directory says, and a vla_config.json beside it."""
    paths = (directory / STATISTICS_NAME, directory / CONFIG_NAME)
    return derive_vla_config(raw, *(read_json(p) if p.is_file() else None for p in paths))
