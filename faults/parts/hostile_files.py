"""
Checkpoint folders as an attacker, or a broken disk, would leave them.

Each entry changes a good folder. It must be refused, or be harmless: what is hostile in it is
never looked at, so the folder may load. A few must load, or refusing would prove nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import json
import os
from pathlib import Path
from typing import Any
import zipfile

from faults.canary import module_text
from faults.canary import pickled

REFUSED, HARMLESS, LOADS = 'refused', 'harmless', 'loads'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_READ_FILES = ('config.json', 'vla_config.json', 'tokenizer.json', 'tokenizer_config.json',
               'processor_config.json')
# More than any of these files has, and more than the memory a test may take.
_SPARSE_BYTES = 3 << 30
_DEPTH = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a hostile folder is made.

    :param outside: a folder beside it that must not be opened, with good files to be lured to.
    :param trace: what exists after any payload has run.
    """

    folder: Path
    outside: Path
    trace: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One hostile folder: how it is made from a good one, and what must come of it."""

    name: str
    make: Callable[[Place], Any]
    outcome: str = REFUSED


def change(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; '__' goes a level down, None removes an entry."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split('__')
        section = content
        for parent in parents:
            section = section[int(parent) if isinstance(section, list) else parent]
        if value is None:
            del section[last]
        else:
            section[last] = value
    path.write_text(json.dumps(content))


def _replace(name: str, content: Callable[[Place], bytes], place: Place) -> None:
    (place.folder / name).unlink(missing_ok=True)
    (place.folder / name).parent.mkdir(exist_ok=True)
    (place.folder / name).write_bytes(content(place))


def _edit(name: str, place: Place, **changes: Any) -> None:
    change(place.folder / name, **changes)


# Pickles

def _pickle(place: Place) -> bytes:
    return pickled(place.trace)


def _torch_zip(place: Place) -> bytes:
    path = place.outside / 'archive'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled(place.trace))
        archive.writestr('archive/version', '3')
    return path.read_bytes()


def _pickled_shard(place: Place) -> None:
    (place.folder / WEIGHTS).unlink()
    (place.folder / 'model-1.safetensors').write_bytes(pickled(place.trace))
    _index(place, {'a': 'model-1.safetensors'})


def _only_pickle(place: Place) -> None:
    (place.folder / WEIGHTS).unlink()
    (place.folder / 'pytorch_model.bin').write_bytes(_torch_zip(place))


def _after_a_header(place: Place) -> bytes:
    return (len(header := b'{}')).to_bytes(8, 'little') + header + pickled(place.trace)


_PICKLES = [
    *(Hostile(name=f'pickle {name}', make=partial(_replace, name, _pickle)) for name in (
        'pytorch_model.bin', 'weights.pt', 'weights.pth', 'weights.ckpt', 'weights.pkl',
        'training_args.bin', 'PYTORCH_MODEL.BIN', 'weights.Pt', 'weights.pickle',
        'weights.joblib')),
    *(Hostile(name=f'pickle renamed {name}', make=partial(_replace, name, _pickle))
      for name in (WEIGHTS, *_READ_FILES)),
    *(Hostile(name=f'pickle renamed {name}', make=partial(_replace, name, _pickle),
              outcome=HARMLESS)
      for name in ('generation_config.json', 'chat_template.jinja', 'special_tokens_map.json',
                   'preprocessor_config.json', 'added_tokens.json', 'tokenizer.model',
                   'flax_model.msgpack', 'README.md', 'sub/pytorch_model.bin', 'weights.npy')),
    Hostile(name='torch archive renamed', make=partial(_replace, WEIGHTS, _torch_zip)),
    Hostile(name='pickle behind an empty header', make=partial(
        _replace, WEIGHTS, _after_a_header)),
    Hostile(name='pickle as a shard', make=_pickled_shard),
    Hostile(name='pickle instead of safetensors', make=_only_pickle),
]


# Code

def _code(place: Place) -> str:
    for name in ('evil.py', 'modeling_evil.py', 'json.py', 'torch.py', '__init__.py',
                 'custom_generate/generate.py'):
        path = place.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(module_text(place.trace) + 'class Evil: pass\ndef generate(*_, **__): 0\n')
    return 'evil.Evil'


def _with_code(name: str, place: Place, **changes: Any) -> None:
    _code(place)
    if not (place.folder / name).exists():
        (place.folder / name).write_text('{}')
    change(place.folder / name, **changes)


_MAPS = ('AutoConfig', 'AutoModel', 'AutoModelForImageTextToText', 'AutoProcessor',
         'AutoTokenizer', 'AutoImageProcessor')
_AUTO_MAP = dict.fromkeys(_MAPS, 'evil.Evil')
_TOKENIZER_MAP = {**_AUTO_MAP, 'AutoTokenizer': ['evil.Evil', 'evil.Evil']}
_REMOTE_MAP = dict.fromkeys(_MAPS, 'owner/evil--evil.Evil')


def _template(text: str, place: Place) -> None:
    (place.folder / 'chat_template.jinja').write_text(text.replace('TRACE', str(place.trace)))
    change(place.folder / 'vla_config.json', prompt__kind='chat',
           prompt__action='do {instruction}', prompt__question='{question}')


_ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('TRACE') }}",
    '{% for x in range(9) %}{{ self._TemplateReference__context }}{% endfor %}',
    "{% include 'config.json' %}", '{{ 1 / 0 }}', '{% raw %}', '{{ raise_exception("no") }}')

_CODE = [
    Hostile(name='auto_map of a known model', outcome=HARMLESS, make=partial(
        _with_code, 'config.json', auto_map=_AUTO_MAP, trust_remote_code=True)),
    Hostile(name='auto_map of an unknown model', make=partial(
        _with_code, 'config.json', auto_map=_AUTO_MAP, model_type='evil')),
    Hostile(name='auto_map without a model', make=partial(
        _with_code, 'config.json', auto_map=_AUTO_MAP, model_type=None)),
    Hostile(name='auto_map of another repository', make=partial(
        _with_code, 'config.json', auto_map=_REMOTE_MAP, model_type='evil')),
    Hostile(name='auto_map of a part', make=partial(
        _with_code, 'config.json', text_config__auto_map=_AUTO_MAP,
        text_config__model_type='evil')),
    *(Hostile(name=f'auto_map in {name}', outcome=HARMLESS, make=partial(
        _with_code, name, **changes)) for name, changes in {
            'tokenizer_config.json': {'auto_map': _TOKENIZER_MAP, 'tokenizer_class': 'Evil'},
            'processor_config.json': {'auto_map': _AUTO_MAP, 'processor_class': 'EvilProcessor'},
            'preprocessor_config.json': {'auto_map': _AUTO_MAP, 'image_processor_type': 'Evil'},
            'generation_config.json': {'custom_generate': 'custom_generate/generate.py',
                                       'trust_remote_code': True},
            'video_preprocessor_config.json': {'auto_map': _REMOTE_MAP},
        }.items()),
    Hostile(name='auto_map of another repository in the processor', outcome=HARMLESS,
            make=partial(_with_code, 'processor_config.json', auto_map=_REMOTE_MAP,
                         processor_class='EvilProcessor')),
    Hostile(name='attention of another repository', make=partial(
        _with_code, 'config.json', attn_implementation='owner/evil'), outcome=HARMLESS),
    Hostile(name='attention of another repository in a part', outcome=HARMLESS, make=partial(
        _with_code, 'config.json', text_config__attn_implementation='owner/evil',
        text_config___attn_implementation='owner/evil')),
    Hostile(name='weights of another repository', outcome=HARMLESS, make=partial(
        _with_code, 'config.json', _name_or_path='owner/evil', base_model='owner/evil')),
    Hostile(name='an adapter', make=partial(
        _replace, 'adapter_config.json',
        lambda place: b'{"base_model_name_or_path": "owner/evil", "peft_type": "LORA"}')),
    Hostile(name='quantisation of its own', make=partial(
        _edit, 'config.json', quantization_config={'quant_method': 'evil'})),
    *(Hostile(name=f'template {number}', make=partial(_template, text), outcome=HARMLESS)
      for number, text in enumerate(_ESCAPES)),
]


# Paths

def _index(place: Place, weight_map: Any) -> None:
    (place.folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))


def _mapped(name: Any, place: Place) -> None:
    (place.folder / WEIGHTS).unlink()
    _index(place, {'a': str(name).replace('OUTSIDE', str(place.outside))
                   if isinstance(name, str) else name})


def _link(name: str, target: str, place: Place) -> None:
    (place.folder / name).unlink(missing_ok=True)
    (place.folder / name).symlink_to(target.replace('OUTSIDE', str(place.outside)))


def _fifo(name: str, place: Place) -> None:
    (place.folder / name).unlink()
    os.mkfifo(place.folder / name)


def _linked_inside(place: Place) -> None:
    (place.folder / WEIGHTS).rename(place.folder / 'data')
    (place.folder / WEIGHTS).symlink_to('data')


def _hub_cache(place: Place) -> None:
    """Lay the folder out as the hub's cache does: files are links to blobs beside it."""
    store = place.folder.with_name('models--owner--name')
    (store / 'blobs').mkdir(parents=True)
    snapshot = store / 'snapshots' / ('1' * 40)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(place.folder.iterdir())):
        path.rename(store / 'blobs' / f'{number:040x}')
        (snapshot / path.name).symlink_to(f'../../blobs/{number:040x}')
    place.folder.rmdir()
    snapshot.rename(place.folder.with_name('1' * 40))
    snapshot.parent.rmdir()
    (store / 'snapshots').mkdir()
    place.folder.with_name('1' * 40).rename(snapshot)
    place.folder.symlink_to(snapshot)


def _hub_cache_with_a_link_out(place: Place) -> None:
    _hub_cache(place)
    _link('vla_config.json', 'OUTSIDE/vla_config.json', place)


_PATHS = [
    *(Hostile(name=f'shard at {str(name)[:30]!r}', make=partial(_mapped, name)) for name in (
        '../outside/model.safetensors', 'OUTSIDE/model.safetensors', '..', '.', '', './x',
        'sub/model.safetensors', 'sub/../../outside/model.safetensors', 'a\0b', '~/x', '%2e%2e/x',
        'x' * 5000, '\u202e', 'C:\\x', 7, None, ['../x'], {'a': 'b'})),
    *(Hostile(name=f'index of {weight_map!r}', make=lambda place, weight_map=weight_map: (
        _mapped('x', place), _index(place, weight_map))) for weight_map in (None, [], 7, 'x', {})),
    *(Hostile(name=f'sha256 of {name!r}', make=partial(
        _edit, 'vla_config.json', weights_sha256={name: '0' * 64})) for name in (
            '../outside/model.safetensors', '/etc/passwd', '', '..', 'config.json', 'a\0b')),
    *(Hostile(name=f'link out {name}', make=partial(_link, name, f'OUTSIDE/{name}'))
      for name in (WEIGHTS, *_READ_FILES, 'generation_config.json')),
    *(Hostile(name=f'link {name} to {target}', make=partial(_link, name, target))
      for name, target in (
        (WEIGHTS, '/dev/zero'), ('config.json', '/dev/zero'), ('tokenizer.json', '/dev/zero'),
        (WEIGHTS, '/proc/self/mem'), ('config.json', 'config.json'), (WEIGHTS, 'nowhere'),
        ('vla_config.json', '/dev/stdin'), ('tokenizer.json', '../outside/tokenizer.json'))),
    Hostile(name='link of a folder out', make=partial(_link, 'custom_generate', 'OUTSIDE')),
    *(Hostile(name=f'pipe {name}', make=partial(_fifo, name))
      for name in (WEIGHTS, *_READ_FILES)),
    Hostile(name='link inside', make=_linked_inside, outcome=LOADS),
    Hostile(name='cache of the hub', make=_hub_cache, outcome=LOADS),
    Hostile(name='cache of the hub with a link out', make=_hub_cache_with_a_link_out),
]


# Sizes and depths

def _sparse(name: str, start: bytes, place: Place) -> None:
    (place.folder / name).unlink(missing_ok=True)
    with (place.folder / name).open('wb') as stream:
        stream.write(start)
        stream.truncate(_SPARSE_BYTES)


def _header_length(length: int) -> bytes:
    return length.to_bytes(8, 'little') + b'{"a": '


def _deep(name: str, opening: str, place: Place) -> None:
    (place.folder / name).write_text(opening * _DEPTH)


def _deep_header(place: Place) -> bytes:
    header = b'{"a":' * _DEPTH
    return len(header).to_bytes(8, 'little') + header


def _long_number(name: str, place: Place) -> None:
    (place.folder / name).write_text('{"model_type": ' + '9' * 100_000 + '}')


_SIZES = [
    *(Hostile(name=f'header of {length} bytes', make=partial(
        _replace, WEIGHTS, lambda place, length=length: _header_length(length)))
      for length in (0, 1, 100, 2 ** 31, 2 ** 32, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1)),
    *(Hostile(name=f'sparse weights with a header of {length} bytes', make=partial(
        _sparse, WEIGHTS, _header_length(length)))
      for length in (6, 2 ** 27, 2 ** 31, _SPARSE_BYTES - 8)),
    *(Hostile(name=f'sparse {name}', make=partial(_sparse, name, b'{'))
      for name in (*_READ_FILES, INDEX, 'generation_config.json', 'chat_template.jinja',
                   'special_tokens_map.json', 'preprocessor_config.json')),
    *(Hostile(name=f'deep {name} of {opening}', make=partial(_deep, name, opening))
      for name in (*_READ_FILES, INDEX) for opening in ('[', '{"a":')),
    *(Hostile(name=f'deep {name}', make=partial(_deep, name, '['), outcome=HARMLESS)
      for name in ('generation_config.json', 'special_tokens_map.json', 'added_tokens.json',
                   'preprocessor_config.json')),
    Hostile(name='deep header', make=partial(_replace, WEIGHTS, _deep_header)),
    *(Hostile(name=f'long number in {name}', make=partial(_long_number, name))
      for name in ('config.json', 'vla_config.json', INDEX)),
]


# Numbers

def _statistics(name: str, numbers: Any, place: Place) -> None:
    change(place.folder / 'vla_config.json', **{f'norm_stats__tabletop__action__{name}': numbers})


_NAN, _INF = float('nan'), float('inf')
_NUMBERS = [
    *(Hostile(name=f'statistics {name} {str(numbers)[:40]}', make=partial(
        _statistics, name, numbers)) for name, numbers in (
            ('q01', [_NAN] * 7), ('q99', [_NAN] * 7), ('q01', [-_INF] * 7), ('q99', [_INF] * 7),
            ('q01', [2.0] * 7), ('q99', [-1.0] * 7), ('q01', [0.0] * 6),
            ('q01', [0.0] * 8), ('q01', ['0'] * 7), ('q01', 0.0), ('q01', [True] * 7),
            ('mask', [1] * 7), ('mask', [True] * 6), ('mean', [_NAN] * 7), ('std', [None] * 7))),
    Hostile(name='statistics whose span is infinite', make=lambda place: (
        _statistics('q01', [-1.7e308] * 7, place), _statistics('q99', [1.7e308] * 7, place))),
    *(Hostile(name=f'{name} of {value}', make=partial(
        _edit, 'vla_config.json', **{name: value})) for name, value in (
            ('tokenizer__horizon', 10 ** 9), ('tokenizer__horizon', 0),
            ('tokenizer__plan_length', 10 ** 9), ('tokenizer__horizon', 1.5),
            ('action_space__period_s', 0.0), ('action_space__period_s', _NAN),
            ('action_space__frame', ''), ('cameras__0__size', [10 ** 6, 10 ** 6]),
            ('cameras__0__crop_area', _NAN), ('format_version', 2), ('unknown', 1),
            ('prompt__action', 'no place'), ('cameras', []), ('norm_stats', {}))),
    *(Hostile(name=f'tokens {changes}', make=partial(
        _edit, 'vla_config.json', tokenizer={'scheme': 'added', **changes})) for changes in (
            {'first_id': 10 ** 12}, {'first_id': -1}, {'first_id': 319}, {})),
    *(Hostile(name=f'{name} of {value}', make=partial(
        _edit, 'config.json', **{name: value})) for name, value in (
            ('text_config__num_hidden_layers', 10 ** 7), ('text_config__hidden_size', 10 ** 9),
            ('text_config__vocab_size', 10 ** 12), ('vision_config__num_hidden_layers', 10 ** 7),
            ('text_config__num_attention_heads', 0), ('text_config__hidden_size', -1),
            ('vision_config__patch_size', 0), ('model_type', ['llava']), ('model_type', 7),
            ('text_config', 'x'), ('vision_config', []))),
]

HOSTILE = (*_PICKLES, *_CODE, *_PATHS, *_SIZES, *_NUMBERS)


