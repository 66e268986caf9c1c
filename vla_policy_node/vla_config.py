"""
The file vla_config.json of a checkpoint: everything beside the weights that execution needs.

Reading it is strict: an unknown field, a wrong type or a missing entry is an error with one
line of text, because a silently ignored field here becomes a wrong motion later.
"""

import hashlib
import os
from pathlib import Path
import tempfile
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from pydantic import FiniteFloat
from pydantic import model_validator
from pydantic import ValidationError

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_space import select_norm_stats
from vla_policy_node.prompts import TEMPLATES

CONFIG_NAME = 'vla_config.json'

_Seven = Annotated[tuple[FiniteFloat, ...], Field(min_length=7, max_length=7)]
_TokenId = Annotated[int, Field(ge=0)]
_Pixels = Annotated[int, Field(ge=1, le=4096)]
_Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
_Sha256 = Annotated[str, Field(pattern=r'^[0-9a-f]{64}$')]

# Which fields say where the 256 bins live in the vocabulary; exactly one of them is given.
_SCHEME_FIELDS = {
    'text': ('separator',),
    'overwritten': ('vocab_size', 'token_ids'),
    'added': ('first_id', 'token_ids'),
    'levels': ('first_id', 'token_ids'),
}
_PLACE_FIELDS = ('separator', 'vocab_size', 'first_id', 'token_ids')


class VlaConfigError(ValueError):
    """vla_config.json or the weights it vouches for cannot be used; one line says why."""


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class ActionSpaceConfig(_Section):
    """Frame, rotation form (rad), gripper convention and seconds per delta."""

    frame: Annotated[str, Field(min_length=1)] = 'base'
    rotation: Literal['rotation_vector', 'fixed_axis_rpy'] = 'rotation_vector'
    gripper: Literal['open_is_one', 'open_is_zero'] = 'open_is_one'
    period_s: Annotated[FiniteFloat, Field(gt=0.0)]


class TextPlanConfig(_Section):
    """
    A plan in free text before the action.

    max_tokens: then only the end marker may follow. end: closes the plan; no other token of a
    plan is the first one that writes it.
    """

    max_tokens: Annotated[int, Field(ge=1, le=256)] = 24
    end: Annotated[str, Field(min_length=1)] = '\n'


class TokenizerConfig(_Section):
    """
    Token scheme and sequence layout; see action_tokenizer for the meaning of each field.

    plan_text, plan_words, plan_length: the parts of a plan, in this order. plan_words: lists of
    which one word each is said, written as they stand, white space included; a list of one word
    is always said.
    """

    scheme: Literal['text', 'overwritten', 'added', 'levels']
    horizon: Annotated[int, Field(ge=1, le=1024)] = 1
    terminate: bool = False
    plan_length: Annotated[int, Field(ge=0, le=256)] = 0
    plan_words: Annotated[tuple[_Words, ...], Field(min_length=1)] | None = None
    plan_text: TextPlanConfig | None = None
    vocab_size: Annotated[int, Field(ge=256)] | None = None
    first_id: _TokenId | None = None
    token_ids: Annotated[tuple[_TokenId, ...], Field(min_length=256, max_length=256)] | None = None
    separator: str | None = None

    @model_validator(mode='after')
    def _place_fits_scheme(self) -> 'TokenizerConfig':
        allowed = _SCHEME_FIELDS[self.scheme]
        given = [name for name in _PLACE_FIELDS if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in allowed:
            raise ValueError(f'scheme {self.scheme!r} takes exactly one of [{", ".join(allowed)}] '
                             f'but [{", ".join(given)}] is given')
        if self.token_ids is not None and len(set(self.token_ids)) != len(self.token_ids):
            raise ValueError('token_ids must not repeat an id')
        return self


class ActionStats(_Section):
    """Statistics of one data set's actions, physical units; the mask says what is normalised."""

    q01: _Seven
    q99: _Seven
    mask: Annotated[tuple[bool, ...], Field(min_length=7, max_length=7)] = (True,) * 7
    mean: _Seven | None = None
    std: _Seven | None = None
    min: _Seven | None = None
    max: _Seven | None = None

    @model_validator(mode='after')
    def _quantiles_in_order(self) -> 'ActionStats':
        NormStats.from_dict(self.model_dump(exclude_none=True))
        return self


class DatasetStats(_Section):
    """One entry of norm_stats, in OpenVLA's layout."""

    action: ActionStats
    proprio: dict[str, Any] | None = None
    num_transitions: Annotated[int, Field(ge=0)] = 0
    num_trajectories: Annotated[int, Field(ge=0)] = 0


class PromptConfig(_Section):
    """
    How the model is asked; see prompts.PromptTemplate.

    action_at_once: asks for the action without the plan, in other words than `action`; only of
    checkpoints that were trained for both.
    """

    kind: Literal['text', 'chat'] = 'text'
    action: str
    action_at_once: str | None = None
    question: str
    lowercase: bool = False

    @model_validator(mode='after')
    def _placeholders_present(self) -> 'PromptConfig':
        for name, placeholder in (('action', '{instruction}'), ('question', '{question}'),
                                  ('action_at_once', '{instruction}')):
            template = getattr(self, name)
            if template is not None and template.count(placeholder) != 1:
                raise ValueError(f'{name} must hold {placeholder} exactly once')
        return self

    @classmethod
    def named(cls, name: str) -> 'PromptConfig':
        """Return the template of that name; ValueError listing the known ones."""
        if name not in TEMPLATES:
            raise ValueError(f'prompt template: expected one of [{", ".join(TEMPLATES)}], found '
                             f'{name!r}; choose a listed one')
        template = TEMPLATES[name]
        return cls(kind=template.kind, action=template.action, question=template.question,
                   lowercase=template.lowercase)


class CameraConfig(_Section):
    """
    One camera the model was trained with.

    size: (height, width) in pixels after preparation, or None to leave the size alone.
    resize: an interpolation of OpenCV after the crop, or 'rlds': the Lanczos filter of the RLDS
    loaders first, then the crop (module rlds_resizing).
    crop_area: share of the image's area kept by a centre crop, in (0, 1].
    """

    name: Annotated[str, Field(min_length=1)] = 'primary'
    size: tuple[_Pixels, _Pixels] | None = None
    resize: Literal['area', 'bilinear', 'bicubic', 'lanczos', 'rlds'] = 'area'
    crop_area: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] = 1.0

    @model_validator(mode='after')
    def _rlds_has_a_size(self) -> 'CameraConfig':
        if self.resize == 'rlds' and self.size is None:
            raise ValueError("resize 'rlds' needs a size, such as [224, 224], found none")
        return self


class VlaConfig(_Section):
    """The whole file; build it in Python or load() it from a checkpoint directory."""

    format_version: Literal[1] = 1
    action_space: ActionSpaceConfig
    tokenizer: TokenizerConfig
    norm_stats: Annotated[dict[str, DatasetStats], Field(min_length=1)]
    prompt: PromptConfig
    cameras: Annotated[tuple[CameraConfig, ...], Field(min_length=1)]
    decoding: Literal['greedy', 'expectation'] = 'greedy'
    weights_sha256: dict[str, _Sha256] = {}

    @field_validator('cameras')
    @classmethod
    def _names_differ(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        names = [camera.name for camera in cameras]
        if len(set(names)) != len(names):
            raise ValueError(f'camera names must differ, not {names}')
        return cameras

    @field_validator('weights_sha256')
    @classmethod
    def _safetensors_only(cls, hashes: dict[str, str]) -> dict[str, str]:
        for name in hashes:
            if Path(name).name != name or not name.endswith('.safetensors'):
                raise ValueError(f'{name!r} must be the plain name of a .safetensors file')
        return hashes

    @property
    def plans(self) -> bool:
        """Whether a plan comes before the action."""
        layout = self.tokenizer
        return bool(layout.plan_length or layout.plan_words or layout.plan_text)

    def without_plan(self) -> 'VlaConfig':
        """Return what asks for the action at once; VlaConfigError where that was not trained."""
        if not self.plans:
            return self
        if self.prompt.action_at_once is None:
            raise VlaConfigError(
                'plan off: expected a checkpoint trained to act with and without a plan, found no '
                f'prompt.action_at_once in {CONFIG_NAME}; leave the plan on')
        no_plan = {'plan_length': 0, 'plan_words': None, 'plan_text': None}
        return self.model_copy(update={
            'tokenizer': self.tokenizer.model_copy(update=no_plan),
            'prompt': self.prompt.model_copy(update={'action': self.prompt.action_at_once})})

    @classmethod
    def load(cls, directory: str | os.PathLike) -> 'VlaConfig':
        """Read vla_config.json of a checkpoint; VlaConfigError with one line on any fault."""
        path = Path(directory) / CONFIG_NAME
        try:
            return cls.model_validate_json(path.read_bytes(), strict=True)
        except ValidationError as error:
            raise VlaConfigError(_one_line(path, error)) from error
        except OSError as error:
            raise VlaConfigError(
                f'{path}: expected a readable file, found {error.strerror or error}; give a '
                f'checkpoint directory that holds {CONFIG_NAME}') from error

    def save(self, directory: str | os.PathLike) -> Path:
        """Write vla_config.json in one step: a reader sees the old file or the new one."""
        text = self.model_dump_json(indent=2, exclude_none=True) + '\n'
        target = Path(directory) / CONFIG_NAME
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f'.{CONFIG_NAME}.')
        try:
            with os.fdopen(handle, 'w', encoding='utf-8') as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from other users
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return target

    def verify_weights(self, directory: str | os.PathLike) -> None:
        """Compare every listed file's sha256; VlaConfigError naming the file that differs."""
        for name, expected in self.weights_sha256.items():
            path = Path(directory) / name
            try:
                found = _sha256(path)
            except OSError as error:
                raise VlaConfigError(
                    f'{path}: expected the weights listed in {CONFIG_NAME}, found '
                    f'{error.strerror or error}; fetch the checkpoint again') from error
            if found != expected:
                raise VlaConfigError(f'{path}: expected sha256 {expected}, found {found}; the '
                                     'file is damaged or changed, fetch the checkpoint again')

    def build_action_space(self, unnorm_key: str | None = None) -> tuple[str, ActionSpace]:
        """Return (key, action space) for one data set; ValueError listing the known keys."""
        raw = {name: entry.model_dump(exclude_none=True)
               for name, entry in self.norm_stats.items()}
        key, stats = select_norm_stats(raw, unnorm_key)
        return key, ActionSpace(stats=stats, **self.action_space.model_dump())


def hash_weights(directory: str | os.PathLike) -> dict[str, str]:
    """Return {name: sha256} of every .safetensors file of a directory, for weights_sha256."""
    return {path.name: _sha256(path) for path in sorted(Path(directory).glob('*.safetensors'))}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _one_line(path: Path, error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    where = '.'.join(str(part) for part in first['loc']) or 'the file'
    wanted = first['msg'].removeprefix('Value error, ').replace('\n', ' ')
    text = f'{path}: {where}: {wanted}'
    if first['type'] not in ('missing', 'json_invalid', 'value_error'):
        found = repr(first['input'])
        text += f', found {found if len(found) <= 60 else found[:57] + "..."}'
    more = f' ({len(errors) - 1} more faults)' if len(errors) > 1 else ''
    return f'{text}{more}; correct it in {CONFIG_NAME}'
