"""Puts the parts of one run together: words, model, action tokenizer, labels."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration
from transformers import PreTrainedTokenizerFast

from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import build_action_tokenizer
from vla_policy_node.action_tokenizer import text_number_ids
from vla_policy_node.simulation import TASKS
from vla_policy_node.training import questions
from vla_policy_node.training.config import TrainingConfig
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.model import build_model
from vla_policy_node.training.vocabulary import build_tokenizer
from vla_policy_node.training.vocabulary import IMAGE
from vla_policy_node.vla_config import CameraConfig
from vla_policy_node.vla_config import PromptConfig
from vla_policy_node.vla_config import TokenizerConfig

PLAN_LENGTH = 2     # the target's image position, u and v


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that a run trains with, besides the frames."""

    tokenizer: PreTrainedTokenizerFast
    token_config: TokenizerConfig
    actions: ActionTokenizer
    prompt: PromptConfig
    camera: CameraConfig
    model: LlavaForConditionalGeneration


def build_parts(config: TrainingConfig) -> Parts:
    """Build tokenizer and a model with random weights drawn from the configured seed."""
    prompt = PromptConfig.named('instruction_first')
    tokenizer = build_tokenizer(_texts(prompt))
    token_config = TokenizerConfig(
        scheme='text', separator='', plan_length=PLAN_LENGTH if config.action.plan else 0)
    actions = build_action_tokenizer(token_config, **text_number_ids(
        lambda text: tokenizer(text, add_special_tokens=False)['input_ids'], ''))
    torch.manual_seed(config.seed)
    model = build_model(
        config.model, vocabulary=len(tokenizer),
        image_id=tokenizer.convert_tokens_to_ids(IMAGE), pad_id=tokenizer.pad_token_id,
        eos_id=tokenizer.eos_token_id, number_ids=torch.from_numpy(actions.bin_token_ids.copy()))
    size = (config.model.image_size, config.model.image_size)
    return Parts(
        tokenizer=tokenizer, token_config=token_config, actions=actions, prompt=prompt,
        camera=CameraConfig(name='primary', size=size, resize='area'), model=model)


def build_labels(parts: Parts, stats: NormStats) -> LabelBuilder:
    """Return the label builder of a run."""
    return LabelBuilder(parts.tokenizer, parts.actions, parts.prompt, stats)


def robot_tasks() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (verb, colour, instructions) of every task in the order of Frames.actions."""
    return [(task.verb, task.colour, task.instructions) for task in TASKS]


def prompt_length(parts: Parts, answer_length: int) -> int:
    """Return the longest text, image tokens not counted, with its answer, in tokens."""
    longest = max(len(text.split()) for text in _longest_texts())
    cues = len(parts.tokenizer(parts.prompt.action, add_special_tokens=False)['input_ids'])
    return longest + cues + answer_length


def answer_length(parts: Parts) -> int:
    """Return the length of the longest answer, in tokens."""
    return int(parts.actions.max_length)


def stats_of(actions: np.ndarray) -> NormStats:
    """Return q01/q99 over all labels (N, T, 7), absent ones (NaN) left out."""
    flat = actions.reshape(-1, actions.shape[-1])
    return NormStats.from_actions(flat[np.isfinite(flat[:, 0])])


def _longest_texts() -> list[str]:
    return [*questions.WORDS, *(words for task in TASKS for words in task.instructions),
            'which colour is the block at 255 255']


def _texts(prompt: PromptConfig) -> list[str]:
    """Return every text a prompt or an answer may be made of."""
    instructions = [words for task in TASKS for words in task.instructions]
    cues = [part.split('>')[-1] for part in (prompt.action, prompt.question)]
    return [*instructions, *questions.WORDS, *cues]
