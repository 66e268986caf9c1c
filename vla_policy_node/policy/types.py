"""What goes into a policy and what comes out of it; knows nothing of torch or ROS."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Protocol

import numpy as np

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.prompts import InstructionError


class PolicyError(ValueError):
    """A checkpoint, a setting or an observation that a policy cannot work with."""


class DecodeError(PolicyError):
    """The model ran, but its output is no action; whoever asked must hold, never move."""


class PromptLengthError(PolicyError, InstructionError):
    """The prompt and the answer have more tokens than the model has room for."""


class PolicyMemoryError(PolicyError):
    """The device has no memory left; what was being loaded or run has been given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    What the robot sees and what it is told, at one moment.

    :param images: camera name -> (H, W, 3) uint8 RGB; the names are those of the checkpoint.
    :param instruction: the task in words, or the question for ``Policy.answer``.
    :param state: (S,) float64 proprioception, None where the checkpoint does not use it.
    :raises PolicyError: an image is not (H, W, 3) uint8, or there is none.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the images and the instruction's type."""
        if not self.images:
            raise PolicyError('expected at least one image in the observation, found none')
        for name, image in self.images.items():
            _check_image(name, image)
        if not isinstance(self.instruction, str):
            found = type(self.instruction).__name__
            raise PolicyError(f'expected the instruction to be a str, found {found}')


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChunk:
    """
    The next K actions, and how sure the model was of them.

    :param actions: (K, 7) float64, [dx, dy, dz] m, [rx, ry, rz] rad rotation vector in the
        action space's frame, gripper in [0, 1] (1 = open).
    :param token_ids: (K, 7) int64 ids in the model's vocabulary, one per dimension; where a bin
        takes several tokens (T,), the same as ``all_token_ids``.
    :param all_token_ids: (T,) int64, every token in order: plan, terminate flag, separators too.
    :param confidence: (K, 7) float32 in [0, 1], probability of the chosen bin among the legal.
    :param plan: the plan in words, '' where the policy does not plan.
    :param terminate: True where the model says the task is done.
    :param timing_ms: milliseconds of preprocess, vision, prefill (without vision), decode, total;
        vision is 0, and counted under prefill, where both are one CUDA graph.
    """

    actions: np.ndarray
    token_ids: np.ndarray
    all_token_ids: np.ndarray
    confidence: np.ndarray
    plan: str = ''
    terminate: bool = False
    timing_ms: Mapping[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """
    Anything that turns observations into actions.

    Wrappers (recorder, chunk smoother, remote) keep this shape.
    """

    @property
    def action_space(self) -> ActionSpace:
        """What the numbers of an action mean."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the next actions; raise DecodeError rather than return a made-up one."""

    def answer(self, observation: Observation, max_new_tokens: int = 64) -> str:
        """Answer the observation's instruction as an ordinary question."""

    def close(self) -> None:
        """Release the model; calling it twice is harmless."""


def _check_image(name: str, image: Any) -> None:
    """Raise PolicyError unless the image is (H, W, 3) uint8 with pixels in it."""
    expected = f'expected image {name!r} to be an (H, W, 3) uint8 RGB array'
    if not isinstance(image, np.ndarray):
        raise PolicyError(f'{expected}, found {type(image).__name__}')
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise PolicyError(f'{expected}, found shape {image.shape} of {image.dtype}')
