"""
From a frame and a task or question to token ids: the only place where labels are made.

Action labels are ids of the action tokenizer that execution decodes with, never text, and every
one of them is checked against its legal-id automaton. Only answers carry loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.prompts import build_action_prompt
from vla_policy_node.prompts import build_question_prompt
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.questions import Question
from vla_policy_node.training.vocabulary import IMAGE
from vla_policy_node.vla_config import PromptConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Prompt ids around the image, and answer ids; source names the mixture source."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    answer: tuple[int, ...]
    source: str


class LabelBuilder:
    """Builds samples for one tokenizer, action tokenizer and prompt template."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, actions: ActionTokenizer,
        prompt: PromptConfig, stats: NormStats,
    ) -> None:
        self._tokenizer = tokenizer
        self._actions = actions
        self._prompt = prompt
        self.stats = stats
        self._image_id = tokenizer.convert_tokens_to_ids(IMAGE)
        self._eos_id = tokenizer.eos_token_id
        self._cache: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def action(
        self, instruction: str, action: np.ndarray, target_uv: Sequence[float]
    ) -> Sample:
        """
        Label an instruction with the expert's action.

        action: (7,) canonical physical units. target_uv: image position in [0, 1], used when the
        tokenizer plans.
        """
        before, after = self.action_prompt(instruction)
        plan = tuple(2.0 * np.asarray(target_uv) - 1.0) if self._actions.plan_length else ()
        answer = self._actions.encode(self.stats.normalize(action[None]), plan=plan)
        return Sample(before=before, after=after, answer=tuple(answer), source='robot')

    def action_prompt(self, instruction: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the prompt's ids before and after the image."""
        return self._split(build_action_prompt(self._prompt, instruction))

    def question_prompt(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of a question's prompt before and after the image."""
        return self._split(build_question_prompt(self._prompt, text))

    def question(self, question: Question) -> Sample:
        """Label a question with its words or its position, and the end of the answer."""
        before, after = self.question_prompt(question.text)
        ids = self.point_ids(question.point) if question.point is not None else tuple(
            self._tokenizer.convert_tokens_to_ids(list(question.words)))
        return Sample(before=before, after=after, answer=(*ids, self._eos_id), source='questions')

    def point_ids(self, uv: Sequence[float]) -> tuple[int, ...]:
        """Write an image position in [0, 1] with the action bins' tokens."""
        values = 2.0 * np.asarray(uv)[:, None] - 1.0
        bins = np.abs(values - self._actions.bin_values).argmin(axis=1)
        return tuple(int(i) for i in self._actions.bin_token_ids[bins])

    def check(self, samples: Sequence[Sample]) -> None:
        """ValueError where an action label is not what the automaton allows."""
        for sample in samples:
            if sample.source == 'robot':
                self._actions.decode(sample.answer)

    def _split(self, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if prompt not in self._cache:
            ids = self._tokenizer(prompt, add_special_tokens=True)['input_ids']
            if ids.count(self._image_id) != 1:
                raise ValueError(
                    f'expected exactly one {IMAGE} in the prompt, found {prompt!r};'
                    ' correct the prompt template'
                )
            place = ids.index(self._image_id)
            self._cache[prompt] = tuple(ids[:place]), tuple(ids[place + 1:])
        return self._cache[prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    B samples over I images, padded on the right to one length T.

    ids, positions (B, T) int64; image_slots (B, T) bool; image (B,) int64 index into the images;
    kept (B, S) int64 image tokens each sample sees; columns, labels (B, A) int64, weights (B, A)
    float32: logits at columns[b, a] predict labels[b, a].
    """

    ids: np.ndarray
    positions: np.ndarray
    image_slots: np.ndarray
    image: np.ndarray
    kept: np.ndarray
    columns: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    sources: tuple[str, ...]


def collate(
    samples: Sequence[Sample], images: Sequence[int], rng: np.random.Generator, *,
    image_tokens: int, kept_tokens: int, length: int, answer_length: int, pad_id: int,
) -> Batch:
    """
    Lay samples out with `kept_tokens` random image tokens each, at their true positions.

    Raises ValueError when a sample does not fit into `length`.
    """
    size = len(samples)
    batch = Batch(
        ids=np.full((size, length), pad_id, np.int64),
        positions=np.zeros((size, length), np.int64),
        image_slots=np.zeros((size, length), bool),
        image=np.asarray(images, np.int64),
        kept=_random_subsets(rng, size, image_tokens, kept_tokens),
        columns=np.zeros((size, answer_length), np.int64),
        labels=np.zeros((size, answer_length), np.int64),
        weights=np.zeros((size, answer_length), np.float32),
        sources=tuple(sample.source for sample in samples),
    )
    for row, sample in enumerate(samples):
        _lay_out(batch, row, sample, image_tokens)
    return batch


def _lay_out(batch: Batch, row: int, sample: Sample, image_tokens: int) -> None:
    """Write one sample into its row."""
    length, kept = batch.ids.shape[1], batch.kept.shape[1]
    start, count = len(sample.before), len(sample.answer)
    tail = (*sample.after, *sample.answer)
    image_end, end = start + kept, start + kept + len(tail)
    if end > length:
        raise ValueError(f'expected at most {length} tokens, found {end}')
    batch.ids[row, :start] = sample.before
    batch.ids[row, image_end:end] = tail
    batch.image_slots[row, start:image_end] = True
    batch.positions[row, :start] = np.arange(start)
    batch.positions[row, start:image_end] = start + batch.kept[row]
    batch.positions[row, image_end:] = start + image_tokens + np.arange(length - image_end)
    batch.columns[row, :count] = end - count - 1 + np.arange(count)
    batch.labels[row, :count] = sample.answer
    batch.weights[row, :count] = 1.0


def _random_subsets(
    rng: np.random.Generator, rows: int, total: int, kept: int
) -> np.ndarray:
    if kept == total:
        return np.broadcast_to(np.arange(total), (rows, total)).copy()
    return np.sort(rng.random((rows, total)).argsort(axis=1)[:, :kept], axis=1)


def tasks_of(frames: Frames, index: int) -> np.ndarray:
    """Return the tasks that have a label at frame `index`."""
    return np.flatnonzero(np.isfinite(frames.actions[index, :, 0]))
