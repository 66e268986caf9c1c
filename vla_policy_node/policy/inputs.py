"""
A prompt and images -> what the model takes, through the checkpoint's own processor.

The text part of one prompt (token ids, image placeholders included) depends only on the words and
on the images' sizes, so it is made once; every further frame costs only its pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.types import PolicyError

_CACHED_PROMPTS = 16
# The training target some processors add; a model given it would compute a loss.
_UNWANTED = ('labels',)


class InputBuilder:
    """Makes model inputs of one prompt and its images, a batch of one."""

    def __init__(self, processor: Any, *, chat: bool, device: str, dtype: torch.dtype) -> None:
        """Take a Hugging Face processor; chat: prompts go through its chat template."""
        self._processor = processor
        self._chat = chat
        self._device = device
        self._dtype = dtype
        self._texts: OrderedDict[tuple, dict[str, torch.Tensor] | None] = OrderedDict()

    def build(self, prompt: str, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """
        Return the tensors on the device, floating ones in the dtype.

        :param prompt: text with the image placeholders, or the user's turn of a chat.
        :param images: (H, W, 3) uint8 each, in the order of the placeholders.
        """
        key = (prompt, *(image.shape for image in images))
        text = self._texts.get(key)
        if text is not None:
            return {**text, **self._move(self._pixels(images))}
        inputs = self.build_once(prompt, images)
        if key not in self._texts:
            self._remember(key, self._text_part(inputs, images))
        return inputs

    def build_once(self, prompt: str, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return the same for a prompt that will not come again; nothing is remembered."""
        return self._move(self._process(prompt, images))

    def _process(self, prompt: str, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Run the whole processor."""
        text, options = prompt, {}
        try:
            if self._chat:
                text = self._chat_text(prompt, len(images))
                start = self._processor.tokenizer.bos_token
                if start and text.startswith(start):
                    options['add_special_tokens'] = False  # The template has added it already.
            return dict(self._processor(
                text=text, images=list(images), return_tensors='pt', **options
            ))
        except (ValueError, IndexError, StopIteration) as error:
            raise PolicyError(
                f'the processor refuses {len(images)} image(s) with prompt {prompt!r}: {error}; '
                'check the prompt and cameras sections of vla_config.json'
            ) from error

    def _chat_text(self, text: str, n_images: int) -> str:
        """Return the text of a chat with one turn of the user: the images, then the words."""
        content = [{'type': 'image'}] * n_images + [{'type': 'text', 'text': text}]
        try:
            return self._processor.apply_chat_template(
                [{'role': 'user', 'content': content}], add_generation_prompt=True
            )
        except Exception as error:  # A template is a program and may raise anything.
            raise PolicyError(
                f'the chat template of the checkpoint fails: {type(error).__name__}: '
                f'{one_line(error)}; correct it, or copy it again'
            ) from error

    def _pixels(self, images: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Run only the image processor."""
        return dict(self._processor.image_processor(list(images), return_tensors='pt'))

    def _text_part(
        self, inputs: dict[str, torch.Tensor], images: Sequence[np.ndarray]
    ) -> dict[str, torch.Tensor] | None:
        """
        Return the inputs that do not depend on pixels.

        None where the image processor alone makes other tensors than the whole processor did.
        """
        pixels = self._move(self._pixels(images))
        for name, value in pixels.items():
            if name not in inputs or not torch.equal(value, inputs[name]):
                return None
        return {name: value for name, value in inputs.items() if name not in pixels}

    def _remember(self, key: tuple, text: dict[str, torch.Tensor] | None) -> None:
        """Keep the text part of the latest prompts."""
        self._texts[key] = text
        if len(self._texts) > _CACHED_PROMPTS:
            self._texts.popitem(last=False)

    def _move(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the tensors, where the model is and as it computes."""
        return {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name not in _UNWANTED
        }
