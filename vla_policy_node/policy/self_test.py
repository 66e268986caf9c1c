"""What a policy must pass before it may move anything; run it when the model is loaded."""

from typing import Any

import numpy as np

from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import Observation
from vla_policy_node.policy.types import PolicyError

# Far below what one image changes, far above the noise of kernels that are not deterministic.
_RELATIVE_TOLERANCE = 1e-6


def run_self_test(
    policy: Any,
    image_size: tuple[int, int] = (480, 640),
    instruction: str = 'pick up the red block',
) -> ActionChunk:
    """
    Look at black and at white images, then decode one action.

    :param policy: a Policy that also has ``camera_names`` and ``action_logits(observation)``.
    :param image_size: (height, width) of the camera images, pixels.
    :return: the action decoded from the black images; it is not for execution.
    :raises PolicyError: the images do not reach the logits.
    :raises DecodeError: the action is not finite.
    """
    black, white = (
        _blank(policy.camera_names, image_size, instruction, level) for level in (0, 255)
    )
    _check_images_matter(policy.action_logits(black), policy.action_logits(white))
    chunk = policy.infer(black)
    if not np.isfinite(chunk.actions).all():
        raise DecodeError(f'self-test: expected a finite action, found {chunk.actions.tolist()}')
    return chunk


def _blank(
    cameras: tuple[str, ...], size: tuple[int, int], instruction: str, level: int
) -> Observation:
    """Return an observation whose images have one grey level."""
    images = {name: np.full((*size, 3), level, np.uint8) for name in cameras}
    return Observation(images=images, instruction=instruction)


def _check_images_matter(black: np.ndarray, white: np.ndarray) -> None:
    """Raise PolicyError unless the two images gave finite, different logits."""
    if not (np.isfinite(black).all() and np.isfinite(white).all()):
        raise DecodeError('self-test: expected finite logits, found NaN or infinity; '
                          'check the weights and the dtype')
    difference = np.abs(black - white).max()
    if difference <= _RELATIVE_TOLERANCE * max(1.0, np.abs(black).max()):
        raise PolicyError(
            'self-test: a black and a white image give the same logits, so the image is silently '
            'ignored; check that the prompt holds the image placeholder and that the installed '
            "transformers version runs this model's vision tower"
        )
