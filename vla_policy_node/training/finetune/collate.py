"""
Examples -> one batch, padded on the right.

Nothing is known of model families: tensors as long as the prompt are extended by the answer the
way `generate` extends them, all others are stacked along their first axis.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vla_policy_node.training.finetune.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """
    B examples and their N answer tokens.

    inputs: the model's, padded to T. The logits at (rows[n], columns[n]) predict labels[n]; all
    (N,) int64. bins: (N,) int64 as in Example. owners: (N,) the example of each token.
    """

    inputs: Mapping[str, torch.Tensor]
    rows: torch.Tensor
    columns: torch.Tensor
    labels: torch.Tensor
    bins: torch.Tensor
    examples: tuple[Example, ...]

    def to(self, device: torch.device) -> 'Batch':
        """Return the batch with its tensors on a device; does not wait for the copies."""
        def move(tensor: torch.Tensor) -> torch.Tensor:
            if device.type == 'cuda':
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True)
        return Batch(
            inputs={name: move(value) for name, value in self.inputs.items()},
            rows=move(self.rows), columns=move(self.columns), labels=move(self.labels),
            bins=move(self.bins), examples=self.examples)


class Collator:
    """Collates for one model; pad_id: any id that is no image token, it is masked anyway."""

    def __init__(self, *, pad_id: int, model_type: str) -> None:
        self._pad_id = pad_id
        # PaliGemma's prompt (0) is read in both directions and what follows (1) is not; all
        # other models' types tell words from pictures, and an answer has none.
        self._answer_type = 1 if model_type == 'paligemma' else 0

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Lay the examples out, each its prompt and all but the last token of its answer."""
        length = max(example.length for example in examples)
        names = dict.fromkeys(name for example in examples for name in example.inputs)
        inputs = {}
        for name in names:
            if _is_per_token(name, examples[0]):
                inputs[name] = self._extended(name, examples, length)
            else:
                inputs[name] = _stacked([e.inputs[name] for e in examples if name in e.inputs])
        counts = [len(example.answer) for example in examples]
        prompts = [example.inputs['input_ids'].shape[1] for example in examples]
        columns = [p - 1 + np.arange(n) for p, n in zip(prompts, counts, strict=True)]
        return Batch(
            inputs=inputs,
            rows=torch.from_numpy(np.repeat(np.arange(len(examples)), counts)),
            columns=torch.from_numpy(np.concatenate(columns)),
            labels=torch.from_numpy(np.concatenate([e.answer for e in examples])),
            bins=torch.from_numpy(np.concatenate([e.bins for e in examples])),
            examples=tuple(examples))

    def _extended(self, name: str, examples: Sequence[Example], length: int) -> torch.Tensor:
        """Return (B, length): prompts, answers but their last tokens, and padding."""
        padding = {'input_ids': self._pad_id, 'token_type_ids': self._answer_type}.get(name, 0)
        dtype = examples[0].inputs[name].dtype
        # Rows are filled through numpy, whose calls cost a tenth of torch's at this size.
        extended = torch.full((len(examples), length), padding, dtype=dtype)
        for row, example in zip(extended.numpy(), examples, strict=True):
            prompt = example.inputs[name].numpy()[0]
            start, end = len(prompt), example.length
            row[:start] = prompt
            if name == 'input_ids':
                row[start:end] = example.answer[:-1]
            elif name == 'attention_mask':
                row[start:end] = 1
        return extended


def _is_per_token(name: str, example: Example) -> bool:
    value = example.inputs.get(name)
    return (value is not None and not value.is_floating_point()
            and value.shape == example.inputs['input_ids'].shape)


def _stacked(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join along the first axis; shorter later axes (fewer tiles) are filled with zeros."""
    shape = [max(value.shape[axis] for value in values) for axis in range(1, values[0].dim())]
    padded = []
    for value in values:
        missing = [most - found for most, found in zip(shape, value.shape[1:], strict=True)]
        amounts = [n for count in reversed(missing) for n in (0, count)]
        padded.append(functional.pad(value, amounts) if any(missing) else value)
    return torch.cat(padded)
