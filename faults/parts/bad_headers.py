"""Headers of safetensors files with random damage: refused, or exactly what the file holds."""

import json
from pathlib import Path

import numpy as np

from faults.parts.poisoned_weights import SHIPPED
from faults.playing import crash_text
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy.checkpoint import read_checkpoint

_SIZES = {'BOOL': 1, 'U8': 1, 'I8': 1, 'F8_E5M2': 1, 'F8_E4M3': 1, 'I16': 2, 'U16': 2, 'F16': 2,
          'BF16': 2, 'I32': 4, 'U32': 4, 'F32': 4, 'F64': 8, 'I64': 8, 'U64': 8}
_DTYPES = (*_SIZES, 'PICKLE', 'f32', '', 'O', 'C64', 'F4', 'F32\0')
_NUMBERS = (-1, 0, 1, 2, 7, 2 ** 31, 2 ** 32, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, 2 ** 64, 1.5,
            True, None, '4', [4])
_TENSORS = {'a': ('F32', [2, 3]), 'b': ('BF16', [4]), 'c': ('F16', [])}


def header_case(scratch: Path, injections: int) -> Case:
    """Return the case, on a folder whose weights are a few bytes."""
    folder = scratch / 'headers'
    folder.mkdir()
    (folder / 'config.json').write_text('{"model_type": "llava"}')
    content = json.loads((SHIPPED / 'vla_config.json').read_text())
    del content['weights_sha256']
    (folder / 'vla_config.json').write_text(json.dumps(content))

    def play(number: int, rng: np.random.Generator, tally: Tally) -> None:
        for _ in range(20):
            content = _damaged(rng)
            (folder / 'model.safetensors').write_bytes(content)
            trouble = _fault(folder, content)
            tally.judge(trouble, content[:300] if trouble else '')
    return Case(name='headers', injections=injections, play=play)


def _fault(folder: Path, content: bytes) -> str | None:
    try:
        read_checkpoint(folder)
    except PolicyError as error:
        if '\n' in str(error):
            return 'the error is not one line'
        return f'refused a whole file: {error}' if _is_whole(content) else None
    except Exception as error:
        return f'expected an error of this project, found {crash_text(error)}'
    return None if _is_whole(content) else 'accepted'


def _is_whole(content: bytes) -> bool:
    """Tell whether the header describes every byte of the data once, and nothing else."""
    length = int.from_bytes(content[:8], 'little')
    data = content[8 + length:]
    if len(content) < 8 + length or not length:
        return False
    try:
        entries = json.loads(content[8:8 + length])
        if not _is_metadata(entries.get('__metadata__')):
            return False
        ranges = sorted(_range(entry) for name, entry in entries.items()
                        if name != '__metadata__')
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return False
    ends = [0, *(end for _, end in ranges)]
    return all(start == end for (start, _), end in zip(ranges, ends, strict=False)) \
        and ends[-1] == len(data)


def _is_metadata(entry: object) -> bool:
    return entry is None or (
        isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values()))


def _range(entry: dict) -> tuple[int, int]:
    start, end = entry['data_offsets']
    count = 1
    for side in entry['shape']:
        if type(side) is not int or side < 0:
            raise ValueError('side')
        count *= side
    if type(start) is not int or type(end) is not int or start < 0:
        raise ValueError('offset')
    if end - start != count * _SIZES[entry['dtype']] or set(entry) != {
            'dtype', 'shape', 'data_offsets'}:
        raise ValueError('size')
    return start, end


def _good_entries() -> tuple[dict, int]:
    entries, place = {}, 0
    for name, (dtype, shape) in _TENSORS.items():
        size = int(np.prod(shape)) * _SIZES[dtype]
        entries[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [place, place + size]}
        place += size
    return entries, place


def _damaged(rng: np.random.Generator) -> bytes:
    entries, size = _good_entries()
    for _ in range(int(rng.integers(0, 3))):
        _damage_entry(rng, entries)
    header = bytearray(json.dumps(entries).encode())
    if rng.integers(3) == 0:
        for place in rng.integers(len(header), size=int(rng.integers(1, 4))):
            header[place] = int(rng.integers(256))
    length, data = len(header), rng.bytes(size)
    kind = rng.integers(8)
    if kind == 0:
        length = int(rng.integers(2 ** 63)) >> int(rng.integers(63))
    elif kind == 1:
        data = data[:int(rng.integers(size))]
    elif kind == 2:
        data += rng.bytes(int(rng.integers(1, 40)))
    content = length.to_bytes(8, 'little') + header + data
    return content[:int(rng.integers(len(content)))] if rng.integers(10) == 0 else content


def _damage_entry(rng: np.random.Generator, entries: dict) -> None:
    name = tuple(entries)[rng.integers(len(entries))]
    entry = entries[name]
    kind = rng.integers(7)
    number = _NUMBERS[rng.integers(len(_NUMBERS))]
    if not isinstance(entry, dict) or kind == 0:
        entries[name] = number
    elif kind == 1:
        entry['dtype'] = _DTYPES[rng.integers(len(_DTYPES))]
    elif kind == 2:
        entry['shape'] = [number] * int(rng.integers(4))
    elif kind == 3:
        entry['data_offsets'] = [number, _NUMBERS[rng.integers(len(_NUMBERS))]]
    elif kind == 4:
        entry.pop(tuple(entry)[rng.integers(len(entry))], None) if entry else None
    elif kind == 5:
        entries[f'../{name}\0'] = dict(entry)
    else:
        entries['__metadata__'] = {'format': 'pt'} if rng.integers(2) else number
