"""
The training configuration: one YAML file, validated before anything is built.

Knows nothing of torch or of the simulator; unknown keys are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator
from pydantic import ValidationError

from vla_policy_node.yaml_file import one_line
from vla_policy_node.yaml_file import read_mapping


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class ModelConfig(_Section):
    """Sizes of a LLaVA-type model built from scratch."""

    image_size: int = Field(gt=0, description='pixels per side of the square input')
    patch_size: int = Field(gt=0, description='pixels per side of one image token')
    width: int = Field(gt=0, multiple_of=64, description='of both towers; 4-bit kernels need 64')
    vision_layers: int = Field(gt=0)
    vision_mlp: int = Field(gt=0)
    text_layers: int = Field(gt=0)
    text_mlp: int = Field(gt=0, multiple_of=64)
    vision_heads: int = Field(gt=0)
    text_heads: int = Field(gt=0)

    @model_validator(mode='after')
    def _check_divisions(self) -> 'ModelConfig':
        if self.image_size % self.patch_size:
            raise ValueError(
                f'image_size must be a multiple of patch_size {self.patch_size},'
                f' found {self.image_size}'
            )
        for heads in (self.vision_heads, self.text_heads):
            if self.width % heads:
                raise ValueError(f'width {self.width} must be a multiple of the heads {heads}')
        return self

    @property
    def image_tokens(self) -> int:
        """Image tokens of one picture."""
        return (self.image_size // self.patch_size) ** 2


class ActionConfig(_Section):
    """How an action becomes tokens."""

    plan: bool = Field(description='answer with the target position (two tokens) first')
    label_sigma_bins: float = Field(ge=0, description='spread of a number label; 0 is one-hot')
    decoding: Literal['greedy', 'expectation'] = 'expectation'


class SceneSet(_Section):
    """
    Scenes first..first+scenes-1 of the simulator, so many frames (0.2 s apart) of each.

    motion: 'wander' through the scene, or 'grasp': begin at a block, take it and lift it.
    """

    first: int = Field(ge=0)
    scenes: int = Field(gt=0)
    frames: int = Field(gt=0)
    motion: Literal['wander', 'grasp'] = 'wander'


class AlignmentStage(_Section):
    """Vision tower and projector learn where everything is, without the language model."""

    kind: Literal['alignment']
    name: str
    steps: int = Field(gt=0)
    images: int = Field(gt=0, description='per step')
    mirror: bool = Field(False, description='half of the frames are mirrored, labels too')
    lr: float = Field(gt=0)
    warmup: int = Field(ge=0)


class MixtureStage(_Section):
    """Next-token training on the mixture of robot and vision-language answers."""

    kind: Literal['mixture']
    name: str
    steps: int = Field(gt=0)
    images: int = Field(gt=0, description='per step')
    prompts_per_image: int = Field(gt=0)
    image_tokens: int = Field(gt=0, description='random image tokens each prompt sees')
    shares: dict[Literal['robot', 'questions'], float] = Field(
        description='sampling probability of each source')
    pointing_only: bool = False
    mirror: bool = Field(False, description='half of the frames are mirrored, labels too')
    near_emphasis: float = Field(
        0.0, ge=0, description='how many times likelier a task is whose block the tool is at')
    decay_steps: int | None = Field(
        None, gt=0, description='length of the learning rate decay where the stage ends before it')
    vision_lr_scale: float = Field(ge=0, description='of lr; 0 freezes tower and projector')
    alignment_weight: float = Field(ge=0)
    lr: float = Field(gt=0)
    final_lr: float = Field(gt=0)
    warmup: int = Field(ge=0)

    @model_validator(mode='after')
    def _check_shares(self) -> 'MixtureStage':
        if any(share < 0 for share in self.shares.values()):
            raise ValueError(f'shares must not be negative, found {self.shares}')
        if self.decay_steps is not None and self.decay_steps < self.steps:
            raise ValueError(
                f'decay_steps must be at least steps {self.steps}, found {self.decay_steps}')
        if abs(sum(self.shares.values()) - 1.0) > 1e-6:
            raise ValueError(f'shares must add up to 1, found {self.shares}')
        return self


class CollectStage(_Section):
    """The current policy drives; the expert labels the frames it gets itself into."""

    kind: Literal['collect']
    name: str
    episodes: int = Field(gt=0)
    steps_per_episode: int = Field(gt=0)
    parallel: int = Field(gt=0, description='simulators at a time')
    repeat: int = Field(1, gt=0, description='how many times as often these frames are drawn')
    verbs: list[Literal['touch', 'pick', 'push left', 'push right']] | None = Field(
        None, description='only tasks of these; null for all')
    seed: int


class SimulateStage(_Section):
    """More scenes by the same recipe as the first demonstrations."""

    kind: Literal['simulate']
    name: str
    scenes: SceneSet
    repeat: int = Field(1, gt=0, description='how many times as often these frames are drawn')


Stage = Annotated[
    AlignmentStage | MixtureStage | CollectStage | SimulateStage,
    Field(discriminator='kind'),
]


class DemonstrationConfig(_Section):
    """The first frames: noisy expert and random motion in the simulator."""

    seed: int
    sets: list[SceneSet] = Field(min_length=1)
    held_out: SceneSet = Field(description='for validation, never trained on')
    workers: int = Field(gt=0, description='processes that simulate')


class TrainingConfig(_Section):
    """Everything one run needs besides the code."""

    recipe: Literal['curriculum']
    name: str
    seed: int
    start: Path | None = Field(
        None, description='state.pt of another run whose weights this one begins with')
    robot_excludes: list[Literal['red', 'green', 'blue', 'yellow']] = Field(
        [], description='colours that no robot label is about; questions still are')
    threads: int = Field(gt=0)
    compile: bool = Field(description='torch.compile the language model; needs a C++ compiler')
    model: ModelConfig
    action: ActionConfig
    demonstrations: DemonstrationConfig
    stages: list[Stage] = Field(min_length=1)
    validate_every: int = Field(gt=0, description='steps')
    closed_loop_episodes: int = Field(ge=0, description='after the last stage')
    closed_loop_steps: int = Field(gt=0)


def load_config(path: Path) -> TrainingConfig:
    """Read and validate a YAML file; ValueError with one line otherwise."""
    return parse_config(read_mapping(path, examples='config/training'), path)


def parse_config(content: Mapping[str, Any], where: Path) -> TrainingConfig:
    """Validate what a YAML file holds; where: its name, for the error."""
    try:
        return TrainingConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(one_line(where, error)) from error
