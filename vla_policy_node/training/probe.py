"""
What a curriculum checkpoint knows of held-out frames, and what it uses to know it.

Everything is decoded freely, as in execution: no answer is helped along by the right one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import LlavaForConditionalGeneration
from transformers import PreTrainedTokenizerFast

from vla_policy_node.action_bins import EVEN_BINS
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.training.closed_loop import BatchPolicy
from vla_policy_node.training.config import load_config
from vla_policy_node.training.frames import COLOURS
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.labels import tasks_of
from vla_policy_node.training.parts import build_labels
from vla_policy_node.training.parts import build_parts
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.questions import draw_kind
from vla_policy_node.training.questions import KINDS
from vla_policy_node.training.questions import Question
from vla_policy_node.vla_config import VlaConfig

RIGHT_WITHIN_PX = 3.0     # of a pointing answer
NEAR_BINS = 5             # about 4 % of the range of an action
_BATCH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A checkpoint that can be asked many things at once."""

    policy: BatchPolicy
    image_size: int
    actions: ActionTokenizer
    tokenizer: PreTrainedTokenizerFast
    stats: NormStats


def open_checkpoint(folder: Path) -> Reader:
    """Load a folder that the curriculum recipe wrote; ValueError where it is none."""
    config = load_config(folder / 'training_config.yaml')
    _, space = VlaConfig.load(folder).build_action_space()
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype='float32', local_files_only=True)
    model.set_attn_implementation('eager')
    parts = replace(build_parts(config), model=model.eval())
    builder = build_labels(parts, space.stats)
    return Reader(
        policy=BatchPolicy(
            model, parts.actions, builder, space.stats,
            expectation=config.action.decoding == 'expectation'),
        image_size=config.model.image_size, actions=parts.actions, tokenizer=parts.tokenizer,
        stats=space.stats)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionScore:
    """
    Held-out answers of one kind: how many were right, and pointing errors.

    right: word answers equal to the last word; places within RIGHT_WITHIN_PX. error_px: (P,) of
    the places that were answered with a place.
    """

    right: int
    asked: int
    error_px: np.ndarray


def ask_questions(
    reader: Reader, frames: Frames, *, per_kind: int, seed: int
) -> dict[str, QuestionScore]:
    """Ask `per_kind` questions of every kind about held-out frames."""
    scores = {}
    for place, kind in enumerate(KINDS):
        rng = np.random.default_rng((seed, place))
        chosen = rng.integers(len(frames), size=per_kind)
        asked = [draw_kind(frames, int(index), rng, kind) for index in chosen]
        scores[kind] = _score(reader, asked, _answers(reader, frames.images[chosen], asked))
    return scores


def _answers(reader: Reader, images: np.ndarray, asked: Sequence[Question]) -> np.ndarray:
    return np.concatenate([
        reader.policy.answer(
            images[start:start + _BATCH],
            [question.text for question in asked[start:start + _BATCH]], 3)
        for start in range(0, len(asked), _BATCH)])


def _score(reader: Reader, asked: Sequence[Question], answers: np.ndarray) -> QuestionScore:
    right, errors = 0, []
    for question, ids in zip(asked, answers, strict=True):
        if question.point is None:
            tokenizer = reader.tokenizer
            wanted = [*tokenizer.convert_tokens_to_ids(list(question.words)),
                      tokenizer.eos_token_id]
            right += ids[:len(wanted)].tolist() == wanted
        elif np.isin(ids[:2], reader.actions.bin_token_ids).all():
            bins = np.searchsorted(reader.actions.bin_token_ids, ids[:2])
            place = reader.actions.bin_values[bins] * 0.5 + 0.5
            errors.append(np.linalg.norm(place - question.point) * reader.image_size)
            right += int(errors[-1] <= RIGHT_WITHIN_PX)
    return QuestionScore(right=right, asked=len(asked), error_px=np.array(errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionScore:
    """(7,) shares of action tokens: equal to the expert's, within NEAR_BINS, and L1 in [-1, 1]."""

    exact: np.ndarray
    near: np.ndarray
    l1: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A held-out frame, what is said, whose label it is held against."""

    frame: int
    words: str
    wanted: np.ndarray


def draw_prompts(frames: Frames, count: int, seed: int, *, swap: bool) -> list[Prompt]:
    """
    Draw frames and tasks with the expert's action; the same ones whatever `swap`.

    swap: the words name another block of the same picture; the label stays.
    """
    rng = np.random.default_rng(seed)
    tasks, prompts = robot_tasks(), []
    for index in rng.integers(len(frames), size=count):
        chosen = int(rng.choice(tasks_of(frames, index)))
        verb, colour, words = tasks[chosen]
        others = [c for c in np.flatnonzero(frames.present[index]) if COLOURS[c] != colour]
        other = COLOURS[int(rng.choice(others))]
        said = words[0].replace(colour, other) if swap else words[0]
        prompts.append(Prompt(
            frame=int(index), words=said, wanted=frames.actions[index, chosen].astype(float)))
    return prompts


def score_actions(
    reader: Reader, frames: Frames, prompts: Sequence[Prompt], *, shuffle: bool = False
) -> ActionScore:
    """Compare decoded actions with the labels; shuffle: every prompt sees another's picture."""
    seen = np.array([prompt.frame for prompt in prompts])
    if shuffle:
        seen = np.roll(seen, len(seen) // 2)
    found = np.concatenate([
        reader.policy.act(
            frames.images[seen[start:start + _BATCH]],
            [prompt.words for prompt in prompts[start:start + _BATCH]])[0]
        for start in range(0, len(prompts), _BATCH)])
    return _compare(reader, found, np.stack([prompt.wanted for prompt in prompts]))


def score_majority(
    reader: Reader, frames: Frames, prompts: Sequence[Prompt]
) -> ActionScore:
    """Compare the labels with the commonest bin of each dimension over all labels of `frames`."""
    labels = frames.actions[np.isfinite(frames.actions[..., 0])]
    bins = EVEN_BINS.encode(reader.stats.normalize(labels))
    commonest = [np.bincount(column).argmax() for column in bins.T]
    centre = reader.stats.unnormalize(EVEN_BINS.values[commonest])
    wanted = np.stack([prompt.wanted for prompt in prompts])
    return _compare(reader, np.tile(centre, (len(wanted), 1)), wanted)


def _compare(reader: Reader, found: np.ndarray, wanted: np.ndarray) -> ActionScore:
    found, wanted = reader.stats.normalize(found), reader.stats.normalize(wanted)
    away = np.abs(EVEN_BINS.encode(found) - EVEN_BINS.encode(wanted))
    return ActionScore(
        exact=(away == 0).mean(axis=0), near=(away <= NEAR_BINS).mean(axis=0),
        l1=np.abs(found - wanted).mean(axis=0))
