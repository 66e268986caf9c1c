"""
Records -> examples: what the processor makes of prompt and pictures, and the ids of the answer.

Prompt, pictures and action tokens come from the modules that execution uses. Labels are ids, never
text, and only answers carry loss.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import re
from typing import Any
from typing import Literal

import numpy as np
import torch

from vla_policy_node import images
from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_space import NormStats
from vla_policy_node.policy.inputs import InputBuilder
from vla_policy_node.prompts import build_action_prompt
from vla_policy_node.prompts import build_question_prompt
from vla_policy_node.training.finetune.augment import Augmenter
from vla_policy_node.training.finetune.base import Language
from vla_policy_node.training.sources.records import Record
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.vla_config import CameraConfig

NOTHING = -1
_BLACK_SIDE = 224


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """
    One prompt and its answer.

    inputs: what the processor made of the prompt, a batch of one. answer: (A,) int64 ids. bins:
    (A,) int64, the bin that a token writes, NOTHING where it writes none by itself. dimensions:
    (A,) int64, 0..6 where a token belongs to that number of an action, else NOTHING. wanted:
    (K, 7) float64 normalised, empty for text.
    """

    kind: Literal['robot', 'text']
    asked: str
    inputs: Mapping[str, torch.Tensor]
    answer: np.ndarray
    bins: np.ndarray
    dimensions: np.ndarray
    wanted: np.ndarray

    @property
    def length(self) -> int:
        """Return the tokens the model reads: the last of the answer is only predicted."""
        return self.inputs['input_ids'].shape[1] + len(self.answer) - 1


class ExampleBuilder:
    """Builds examples for one language, one set of statistics and one way to augment."""

    def __init__(
        self, language: Language, stats: NormStats, augmenter: Augmenter, dtype: torch.dtype
    ) -> None:
        """dtype: of the pictures."""
        self._language = language
        self._stats = stats
        self._augmenter = augmenter
        self._inputs = InputBuilder(
            language.processor, chat=language.prompt.kind == 'chat', device='cpu', dtype=dtype)
        self._single = language.actions.bin_token_ids is not None

    def build(self, record: Record, rng: np.random.Generator | None = None) -> Example:
        """
        Build one example; rng: augments a robot's pictures, None leaves them as in execution.

        Raises RecordError for everything that is wrong with the record.
        """
        try:
            example = (self._action(record, rng) if isinstance(record, RobotRecord)
                       else self._answer(record))
        except RecordError:
            raise
        except ValueError as error:  # of prompt, image, processor or action tokenizer
            raise RecordError(' '.join(str(error).split())) from error
        longest = self._language.max_length
        if example.length > longest:
            raise RecordError(f'record: expected at most {longest} tokens with prompt and '
                              f'pictures, found {example.length}; shorten the text')
        return example

    def _action(self, record: RobotRecord, rng: np.random.Generator | None) -> Example:
        language = self._language
        pictures = [self._picture(record, camera, rng) for camera in language.cameras]
        prompt = build_action_prompt(language.prompt, record.instruction)
        wanted = self._stats.normalize(from_canonical(record.actions, language.action_space))
        flag = {'terminate': record.terminate} if language.token_config.terminate else {}
        answer = language.actions.encode(wanted, **flag, **self._plan(record))
        bins, dimensions = self._places(answer)
        return Example(
            kind='robot', asked=record.instruction,
            inputs=self._inputs.build_once(prompt, pictures), answer=np.array(answer, np.int64),
            bins=bins, dimensions=dimensions, wanted=wanted)

    def _answer(self, record: TextRecord) -> Example:
        camera = self._language.cameras[0].model_copy(update={'crop_area': 1.0})
        pictures = [images.prepare(rgb, camera) for rgb in record.images.values()]
        # Every model then takes the record, and every process runs its vision tower in each step.
        pictures = pictures or [np.zeros((*(camera.size or (_BLACK_SIDE,) * 2), 3), np.uint8)]
        question = ' '.join(record.question.split())
        prompt = _with_placeholders(
            build_question_prompt(self._language.prompt, question),
            self._language.image_marker, len(pictures))
        tokenizer = self._language.processor.tokenizer
        ids = tokenizer(record.answer.strip(), add_special_tokens=False)['input_ids']
        if not ids:
            raise RecordError('record: expected an answer in words, found an empty one; drop it')
        nothing = np.full(len(ids) + 1, NOTHING)
        return Example(
            kind='text', asked=question, inputs=self._inputs.build_once(prompt, pictures),
            answer=np.array([*ids, self._language.eos_id], np.int64), bins=nothing,
            dimensions=nothing, wanted=np.empty((0, ACTION_DIM)))

    def _picture(
        self, record: RobotRecord, camera: CameraConfig, rng: np.random.Generator | None
    ) -> np.ndarray:
        if camera.name not in record.images:
            raise RecordError(f'record: expected a picture of camera {camera.name}, found '
                              f'{", ".join(record.images) or "none"}; rename the camera in the '
                              'source or in cameras')
        rgb = record.images[camera.name]
        return images.prepare(rgb, camera) if rng is None else self._augmenter(rgb, camera, rng)

    def _plan(self, record: RobotRecord) -> dict[str, Any]:
        """Return the arguments of encode that write the record's plan."""
        wanted = self._language.token_config
        if wanted.plan_text is not None:
            tokenizer = self._language.processor.tokenizer
            return {'plan_ids': tokenizer.encode(record.plan.strip(), add_special_tokens=False)}
        if not wanted.plan_length and not wanted.plan_words:
            return {}
        places, rest = _choose_words(wanted.plan_words or (), record.plan)
        values = self._language.actions.bin_values
        numbers = [int(number) for number in re.findall(r'\d+', rest)][-wanted.plan_length:]
        if len(numbers) != wanted.plan_length or max(numbers, default=0) >= len(values):
            raise RecordError(f"record: expected a plan like 'red block at 120 88' with "
                              f'{wanted.plan_length} numbers 0..255, found {record.plan!r}; '
                              'choose plan none or repair it')
        return {'plan': [float(values[number]) for number in numbers], 'plan_words': places}

    def _places(self, answer: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the bin and the dimension of every token of an action's label."""
        actions = self._language.actions
        bins, dimensions = (np.full(len(answer), NOTHING) for _ in range(2))
        decoded = actions.decode(answer)
        for step, dimension in np.ndindex(decoded.bins.shape):
            start, end = decoded.spans[step, dimension]
            dimensions[start:end] = dimension
            if self._single:
                bins[start] = decoded.bins[step, dimension]
        if self._single:
            self._mark_plan(answer, bins)
        return bins, dimensions

    def _mark_plan(self, answer: Sequence[int], bins: np.ndarray) -> None:
        """Write down the bins of a plan's numbers."""
        numbers = self._language.actions.bin_token_ids.tolist()
        cursor = self._language.actions.start()
        for place, token in enumerate(answer):
            if cursor.kind == 'plan' and token in numbers:
                bins[place] = numbers.index(token)
            cursor.advance(token)


def _with_placeholders(prompt: str, marker: str, count: int) -> str:
    """Repeat the one image placeholder of a text prompt for several pictures."""
    if count == 1 or prompt.count(marker) != 1:
        return prompt
    return prompt.replace(marker, marker * count)


def _choose_words(
    lists: Sequence[Sequence[str]], plan: str
) -> tuple[list[int], str]:
    """Return the number of the word in each list that a plan begins with, and what is left."""
    places, rest = [], plan.strip()
    for words in lists:
        fitting = [place for place, word in enumerate(words) if rest.startswith(word.strip())]
        if not fitting:
            raise RecordError(f'record: expected a plan that goes on with one of '
                              f'{", ".join(word.strip() for word in words)}, found {plan!r}; '
                              'choose another plan or repair it')
        places.append(max(fitting, key=lambda place: len(words[place])))
        rest = rest[len(words[places[-1]].strip()):].lstrip()
    return places, rest
