"""
Prompt and picture -> what the model takes, and the files of tokenizer and image processor.

It has what the rest of the suite asks of a processor of transformers.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import torch
from transformers import LlamaTokenizer
from transformers import PreTrainedTokenizerFast

from vla_policy_node.policy.checkpoint import read_json
from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.openvla.layout import tower_layouts
from vla_policy_node.policy.openvla.pictures import OpenVLAImageProcessor
from vla_policy_node.policy.openvla.pictures import PREPROCESSOR_NAME
from vla_policy_node.policy.types import PolicyError

# A lone space in Llama's vocabulary. Training had one between prompt and action, and a tokenizer
# does not write it at the end of a prompt.
SPACE_ID = 29871


class OpenVLAProcessor:
    """A tokenizer and an image processor; one picture per prompt, and no token stands for it."""

    def __init__(self, tokenizer: Any, image_processor: OpenVLAImageProcessor) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor

    @classmethod
    def from_folder(cls, directory: Path) -> 'OpenVLAProcessor':
        """Read both; PolicyError where a file is missing or damaged."""
        raw, path = read_json(directory / 'config.json'), directory / PREPROCESSOR_NAME
        if path.is_file():
            pictures = OpenVLAImageProcessor(read_json(path))
            _check_sides(raw, pictures.sides)
        else:
            pictures = OpenVLAImageProcessor.from_model_config(raw)
        return cls(_tokenizer(directory), pictures)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the files that from_folder reads."""
        self.tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)

    def __call__(
        self, text: str, images: Sequence[np.ndarray | Image.Image], return_tensors: str = 'pt'
    ) -> dict[str, torch.Tensor]:
        """
        Return input_ids and attention_mask, (1, T) int64, and pixel_values.

        :raises ValueError: there is not exactly one picture, or the text has a place for one.
        """
        if len(images) != 1:
            raise ValueError(f'OpenVLA looks at one picture at a time, found {len(images)}')
        if '<image>' in text:
            raise ValueError('OpenVLA has no <image> in its prompt; use prompt openvla')
        input_ids = torch.tensor([self._ids(text)])
        return {'input_ids': input_ids, 'attention_mask': torch.ones_like(input_ids),
                **self.image_processor(images, return_tensors=return_tensors)}

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        """Refuse: these models were never trained on one."""
        raise ValueError('OpenVLA has no chat template; use prompt openvla')

    def _ids(self, text: str) -> list[int]:
        """Return the ids between the first token, which patches follow, and the lone space."""
        ids = self.tokenizer(text)['input_ids']
        start = self.tokenizer.bos_token_id
        if start is not None and ids[:1] != [start]:
            ids = [start, *ids]
        return ids if ids[-1] == SPACE_ID else [*ids, SPACE_ID]


def _check_sides(raw: Mapping[str, Any], found: Sequence[int]) -> None:
    """Raise PolicyError unless every vision tower gets pictures of the size it takes."""
    towers = raw.get('vision_towers')  # As this suite writes them.
    wanted = [tower['size'] for tower in towers] if towers else [
        layout.size for layout in tower_layouts(raw)]
    if list(found) != wanted:
        raise PolicyError(
            f'expected input_sizes of {wanted} pixels, one per vision tower as config.json says, '
            f'found {list(found)}; correct {PREPROCESSOR_NAME}')


def _tokenizer(directory: Path) -> Any:
    fast = (directory / 'tokenizer.json').is_file()
    kind = PreTrainedTokenizerFast if fast else LlamaTokenizer
    try:
        tokenizer = kind.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, TypeError, ImportError, KeyError, AttributeError,
            RecursionError) as error:
        raise PolicyError(f'{directory} has no usable tokenizer ({one_line(error)}); expected '
                          'tokenizer.json as saved with the model') from error
    if len(tokenizer) <= SPACE_ID:
        raise PolicyError(f'expected the tokenizer of {directory} to know the {SPACE_ID} and more '
                          f"ids of Llama 2, found {len(tokenizer)}; copy the original's files")
    return tokenizer
