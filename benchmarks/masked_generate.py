"""transformers' own constrained decoding, and how far it agrees with another way."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import torch
from torch import nn
from transformers import GenerationConfig
from transformers import LogitsProcessorList

from vla_policy_node.action_tokenizer import ActionTokenizer

Inputs = Mapping[str, torch.Tensor]
Way = Callable[[Inputs], list[int]]


class MaskedGenerate:
    """``generate`` with the full head and a mask, which is made beforehand for every place."""

    def __init__(self, model: nn.Module, tokenizer: ActionTokenizer) -> None:
        """Take a tokenizer with ``fixed_places``."""
        self._model = model
        vocabulary = model.get_output_embeddings().weight.shape[0]
        places = tokenizer.fixed_places
        self._masks = torch.full((len(places), vocabulary), -torch.inf, device=model.device)
        for mask, (legal, _) in zip(self._masks, places, strict=True):
            mask[torch.tensor(legal, device=model.device)] = 0.0
        self._config = GenerationConfig(
            max_new_tokens=len(places), do_sample=False, eos_token_id=None, pad_token_id=0)

    def __call__(self, inputs: Inputs) -> list[int]:
        """Return the ids of one action."""
        n_prompt = inputs['input_ids'].shape[1]

        def mask(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores + self._masks[input_ids.shape[1] - n_prompt]

        with torch.inference_mode():
            ids = self._model.generate(**inputs, generation_config=self._config,
                                       logits_processor=LogitsProcessorList([mask]))
        return ids[0, n_prompt:].tolist()


def agreement(inputs: Iterable[Inputs], first: Way, second: Way) -> dict[str, int]:
    """Return for how many inputs two ways give the same tokens, and how varied these are."""
    pairs = [(first(one), second(one)) for one in inputs]
    return {'frames': len(pairs), 'same': sum(one == other for one, other in pairs),
            'distinct': len({tuple(one) for one, _ in pairs})}
