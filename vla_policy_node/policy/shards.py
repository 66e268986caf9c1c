"""
Whether the files of a checkpoint's weights are whole and belong together.

Reads headers only, so that even seven billion weights are checked within milliseconds.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path

from safetensors import safe_open
from safetensors import SafetensorError

from vla_policy_node.policy.types import PolicyError

_LENGTH_BYTES = 8
# What safetensors itself keeps to.
_MOST_HEADER_BYTES = 100_000_000
_GIT_LFS = b'version https://git-lfs'


def check_shards(paths: Sequence[Path], weight_map: Mapping[str, str]) -> int:
    """
    Return the number of tensors in all files.

    :param paths: all safetensors files of the checkpoint.
    :param weight_map: tensor -> name of its file, as the index says; empty without one.
    :raises PolicyError: names the first file that is damaged or of another checkpoint.
    """
    place_of: dict[str, str] = {}
    for path in paths:
        for name in _tensor_names(path):
            if name in place_of:
                raise PolicyError(
                    f'{path.parent} holds {name} twice, in {place_of[name]} and in {path.name}; '
                    'the shards are of different checkpoints, copy or download them again')
            place_of[name] = path.name
    if weight_map:
        _compare(paths[0].parent, place_of, weight_map)
    return len(place_of)


def _compare(directory: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise PolicyError unless each tensor is where the index says, and no other is there."""
    mend = 'shards and index are of different checkpoints, copy or download them again'
    missing = [name for name in wanted if found.get(name) != wanted[name]]
    if missing:
        name = missing[0]
        place = f'in {found[name]}' if name in found else 'in no file'
        raise PolicyError(
            f'{directory} has {len(missing)} tensors in other places than the index says: '
            f'expected {name} in {wanted[name]}, found it {place}; {mend}')
    extra = [name for name in found if name not in wanted]
    if extra:
        raise PolicyError(
            f'{directory} has {len(extra)} tensors that the index does not name, the first is '
            f'{extra[0]} in {found[extra[0]]}; {mend}')


def _tensor_names(path: Path) -> list[str]:
    """Return the names in a file's header; PolicyError unless header and length agree."""
    try:
        with safe_open(path, framework='np') as weights:
            return list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise PolicyError(
            f'{path} is not a readable safetensors file ({_damage(path) or error}); copy or '
            'download it again'
        ) from error


def _damage(path: Path) -> str:
    """Say in what way a file is damaged; '' where only the library can say it."""
    size = path.stat().st_size
    with path.open('rb') as stream:
        start = stream.read(max(_LENGTH_BYTES, len(_GIT_LFS)))
        if start == _GIT_LFS:
            return "a pointer of Git LFS, for which 'git lfs pull' fetches the file"
        length = int.from_bytes(start[:_LENGTH_BYTES], 'little')
        if len(start) < _LENGTH_BYTES or _LENGTH_BYTES + length > size:
            return f'cut off in its header after {size} bytes'
        if length > _MOST_HEADER_BYTES:
            return f'a header of {length} bytes, at most {_MOST_HEADER_BYTES} are read'
        stream.seek(_LENGTH_BYTES)
        try:
            entries = json.loads(stream.read(length))
            ends = [entry['data_offsets'][1] for name, entry in entries.items()
                    if name != '__metadata__']
            wanted = _LENGTH_BYTES + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return ''
    return f'expected {wanted} bytes, found {size}' if wanted != size else ''
