"""
What a model says to a few held-out records, generated as execution would, for a person to judge.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig
from transformers import LogitsProcessor
from transformers import LogitsProcessorList

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.tuning import evaluating
from vla_policy_node.training.pictures import ActionSample
from vla_policy_node.training.pictures import AnswerSample
from vla_policy_node.training.pictures import Point
from vla_policy_node.training.sources.records import Record

_ANSWER_TOKENS = 32


class Speaker:
    """
    Generates greedily from a model of transformers, actions within the legal tokens.

    space: what the numbers of an action mean, statistics included.
    """

    def __init__(
        self, model: nn.Module, actions: ActionTokenizer, space: ActionSpace, tokenizer: Any,
        eos_id: int,
    ) -> None:
        self._model = model
        self._actions = actions
        self._space = space
        self._tokenizer = tokenizer
        self._eos_id = eos_id

    def sample(self, record: Record, example: Example) -> ActionSample | AnswerSample:
        """Return a record with what the model says to it; example: built from the record."""
        said = self._say(example)
        if example.kind == 'text':
            return AnswerSample(
                question=example.asked, wanted=self._read(example.answer),
                predicted=self._read(said), images=record.images)
        wanted, wanted_point = self._act(example.answer)
        predicted, point = self._act(said[said != self._eos_id])
        return ActionSample(
            images=record.images, instruction=example.asked, wanted=wanted, predicted=predicted,
            wanted_point=wanted_point, predicted_point=point)

    def _say(self, example: Example) -> np.ndarray:
        """Return the ids that follow the prompt."""
        inputs = {name: value.to(self._model.device) for name, value in example.inputs.items()}
        start = inputs['input_ids'].shape[1]
        robot = example.kind == 'robot'
        limits = [_Legal(self._actions, start, self._eos_id)] if robot else []
        config = GenerationConfig(
            max_new_tokens=self._actions.max_length + 1 if robot else _ANSWER_TOKENS,
            do_sample=False, num_beams=1, eos_token_id=self._eos_id, pad_token_id=0)
        with evaluating(self._model):
            found = self._model.generate(
                **inputs, generation_config=config, logits_processor=LogitsProcessorList(limits))
        return found[0, start:].cpu().numpy()

    def _read(self, ids: np.ndarray) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _act(self, ids: np.ndarray) -> tuple[np.ndarray, Point | None]:
        """Return an action in canonical units, and the point of its plan in the picture."""
        decoded = self._actions.decode(ids)
        action = self._space.to_canonical(self._space.stats.unnormalize(decoded.actions))
        if not decoded.plan:
            return action, None
        u, v = ((value + 1.0) / 2.0 for value in decoded.plan)
        return action, (u, v)


class _Legal(LogitsProcessor):
    """Leaves only the tokens that continue an action, and then the end."""

    def __init__(self, actions: ActionTokenizer, start: int, eos_id: int) -> None:
        self._actions = actions
        self._start = start
        self._eos_id = eos_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        legal = self._actions.legal_next(input_ids[0, self._start:].tolist())
        ids = legal.tolist() or [self._eos_id]
        masked = torch.full_like(scores, -torch.inf)
        masked[:, ids] = scores[:, ids]
        return masked
