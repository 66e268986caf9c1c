"""
The configuration of `recipe: finetune`: one YAML file, validated before anything is loaded.

Knows nothing of torch.
"""

from collections.abc import Mapping
from pathlib import Path
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

from vla_policy_node.prompts import TEMPLATES
from vla_policy_node.training.sources.opening import SourceSection
from vla_policy_node.training.sources.weights import MixtureConfig
from vla_policy_node.vla_config import CameraConfig
from vla_policy_node.yaml_file import one_line

Part = Literal['vision', 'projector', 'embeddings']
_Share = Annotated[FiniteFloat, Field(gt=0.0, le=1.0)]
_Strength = Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)]
_Rate = Annotated[FiniteFloat, Field(ge=0.0)]
_Count = Annotated[int, Field(ge=1)]


class FinetuneConfigError(ValueError):
    """The configuration cannot be used; one line names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class ActionConfig(_Section):
    """How an action becomes tokens, and what its seven numbers mean."""

    scheme: Literal['text', 'overwritten', 'added', 'levels']
    separator: str = Field(' ', description='between two numbers; scheme text only')
    horizon: _Count = 1
    terminate: bool = False
    plan: Literal['none', 'point', 'text'] = 'none'
    plan_max_tokens: Annotated[int, Field(ge=1, le=256, description='plan text only')] = 24
    plan_end: Annotated[str, Field(min_length=1, description='closes a plan in text')] = '\n'
    decoding: Literal['greedy', 'expectation'] = 'greedy'
    frame: Annotated[str, Field(min_length=1)] = 'base'
    rotation: Literal['rotation_vector', 'fixed_axis_rpy'] = 'rotation_vector'
    gripper: Literal['open_is_one', 'open_is_zero'] = 'open_is_one'
    period_s: Annotated[FiniteFloat, Field(gt=0.0)]


class TuningConfig(_Section):
    """
    Which weights change.

    full: all of them. lora: low-rank adapters beside every linear layer that is not frozen.
    qlora: the same beside 4-bit weights. freeze: parts that stay as they are; None freezes all
    three beside adapters, and nothing in full tuning. Adapters are merged into the weights of the
    policy folder.
    """

    method: Literal['full', 'lora', 'qlora'] = 'lora'
    rank: _Count = 32
    alpha: Annotated[FiniteFloat, Field(gt=0.0)] = 16.0
    dropout: _Strength = 0.0
    freeze: tuple[Part, ...] | None = None

    @property
    def frozen(self) -> frozenset[str]:
        """Return the parts that stay as they are."""
        if self.freeze is None:
            full = self.method == 'full'
            return frozenset() if full else frozenset({'vision', 'projector', 'embeddings'})
        return frozenset(self.freeze)


class AugmentationConfig(_Section):
    """
    Changes of the robot's training pictures.

    crop_area: share of the area kept by a random crop; execution keeps the same share around
    the centre. brightness, contrast, saturation: factors are drawn from 1 +- this. hue: shift in
    turns of the colour circle, at most this.
    """

    crop_area: _Share = 1.0
    brightness: _Strength = 0.0
    contrast: _Strength = 0.0
    saturation: _Strength = 0.0
    hue: Annotated[FiniteFloat, Field(ge=0.0, le=0.5)] = 0.0


class OptimisationConfig(_Section):
    """The loop; a step is one update from batch_size x accumulation records per process."""

    steps: _Count
    batch_size: _Count = Field(8, description='records at a time, per process')
    accumulation: _Count = Field(1, description='batches per step')
    lr: Annotated[FiniteFloat, Field(gt=0.0)]
    warmup: Annotated[int, Field(ge=0, description='steps')] = 0
    final_lr: _Rate = 0.0
    weight_decay: _Rate = 0.0
    clip_norm: Annotated[FiniteFloat, Field(gt=0.0)] = 1.0
    precision: Literal['bf16', 'fp32'] = 'bf16'
    gradient_checkpointing: bool = False
    label_sigma_bins: _Rate = Field(0.0, description='spread of a number label; 0 is one-hot')
    save_every: _Count = Field(200, description='steps')
    workers: Annotated[int, Field(
        ge=0, description='processes that prepare records; 0 for threads')] = 0

    @model_validator(mode='after')
    def _warm_up_ends(self) -> 'OptimisationConfig':
        if self.warmup >= self.steps and self.warmup:
            raise ValueError(f'warmup must be less than steps {self.steps}, found {self.warmup}')
        return self


class ValidationConfig(_Section):
    """
    Held-out episodes and what is measured on them.

    share: of each source's episodes (conversations, pictures). every: steps between
    measurements. samples: records per source. patience: measurements without a new lowest loss
    before training ends early; None never. pictures: sample predictions that are drawn.
    """

    share: Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)] = 0.05
    every: _Count = 100
    samples: _Count = 128
    patience: _Count | None = None
    pictures: Annotated[int, Field(ge=0)] = 8

    @model_validator(mode='after')
    def _patience_needs_data(self) -> 'ValidationConfig':
        if self.patience is not None and self.share == 0.0:
            raise ValueError('patience needs held-out records, but share is 0')
        return self


class FinetuneConfig(_Section):
    """Everything one run needs besides the code."""

    recipe: Literal['finetune']
    name: Annotated[str, Field(pattern=r'^[A-Za-z0-9][\w.-]*$')]
    seed: Annotated[int, Field(ge=0)] = 0
    base: Annotated[str, Field(min_length=1)]
    unnorm_key: str | None = None
    action: ActionConfig | None = None
    prompt: str | None = None
    cameras: Annotated[tuple[CameraConfig, ...], Field(min_length=1)] | None = None
    sources: Annotated[dict[str, SourceSection], Field(min_length=1)]
    mixture: MixtureConfig
    tuning: TuningConfig = TuningConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: OptimisationConfig
    validation: ValidationConfig = ValidationConfig()

    @field_validator('prompt')
    @classmethod
    def _prompt_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in TEMPLATES:
            raise ValueError(f'must be one of {", ".join(TEMPLATES)}')
        return name

    @property
    def stats_key(self) -> str:
        """Return the name under which the statistics are stored."""
        return self.unnorm_key or self.name


def parse_config(content: Mapping[str, Any], where: Path) -> FinetuneConfig:
    """Validate what a YAML file holds; where: its name, for the error."""
    try:
        return FinetuneConfig.model_validate(content)
    except ValidationError as error:
        raise FinetuneConfigError(one_line(where, error)) from error
