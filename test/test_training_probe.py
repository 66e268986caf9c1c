"""The probe: what it asks, what it counts as right, and what it shuffles."""

from collections.abc import Sequence

import numpy as np
import pytest
from training_frames import BLUE
from training_frames import make_frames
from training_frames import RED

from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import build_action_tokenizer
from vla_policy_node.action_tokenizer import text_number_ids
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.probe import ask_questions
from vla_policy_node.training.probe import draw_prompts
from vla_policy_node.training.probe import Prompt
from vla_policy_node.training.probe import Reader
from vla_policy_node.training.probe import score_actions
from vla_policy_node.training.probe import score_majority
from vla_policy_node.training.questions import KINDS
from vla_policy_node.training.questions import WORDS
from vla_policy_node.training.vocabulary import build_tokenizer
from vla_policy_node.vla_config import TokenizerConfig

TOKENIZER = build_tokenizer(WORDS)
ACTIONS = build_action_tokenizer(
    TokenizerConfig(scheme='text', separator='', plan_length=2),
    **text_number_ids(lambda text: TOKENIZER(text)['input_ids'], ''))
STATS = NormStats(q01=[-0.04] * 3 + [0.0] * 4, q99=[0.04] * 3 + [0.0] * 3 + [1.0],
                  mask=[True] * 6 + [False])
FORWARD = np.array([0.04, 0, 0, 0, 0, 0, 1.0])


class FakePolicy:
    """Says one thing to every question; moves along x by the brightness of what it sees."""

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = TOKENIZER.convert_tokens_to_ids(list(words))

    def answer(self, images: np.ndarray, questions: Sequence[str], length: int) -> np.ndarray:
        return np.tile(self._ids[:length], (len(images), 1))

    def act(self, images: np.ndarray, instructions: Sequence[str]) -> tuple[np.ndarray, None]:
        forward = (images.mean(axis=(1, 2, 3)) > 0)[:, None]
        return forward * FORWARD, None


def _reader(words: Sequence[str] = ('yes', '<eos>', '<eos>')) -> Reader:
    return Reader(
        policy=FakePolicy(words), image_size=128, actions=ACTIONS, tokenizer=TOKENIZER,
        stats=STATS)


def test_every_kind_is_asked_as_often() -> None:
    scores = ask_questions(_reader(), make_frames(), per_kind=5, seed=0)
    assert {kind: score.asked for kind, score in scores.items()} == dict.fromkeys(KINDS, 5)


def test_a_word_answer_is_right_when_it_is_all_of_the_answer() -> None:
    frames = make_frames()
    assert ask_questions(_reader(), frames, per_kind=9, seed=0)['open'].right > 0
    unfinished = _reader(('yes', 'yes', '<eos>'))
    assert ask_questions(unfinished, frames, per_kind=9, seed=0)['open'].right == 0


def test_a_place_is_measured_in_pixels_and_a_word_is_no_place() -> None:
    frames = make_frames()
    u, v = (np.clip(frames.tool_uv[0], 0, 1) * 255.99).astype(int)
    there = ask_questions(
        _reader((str(u), str(v), '<eos>')), frames.take(np.array([0])), per_kind=4, seed=0)
    assert there['gripper'].right == 4
    assert there['gripper'].error_px.max() < 0.5
    word = ask_questions(_reader(), frames, per_kind=4, seed=0)['gripper']
    assert word.right == 0 and word.error_px.size == 0


def test_a_swapped_prompt_names_another_block_of_the_picture_and_keeps_the_label() -> None:
    frames = make_frames()
    right = draw_prompts(frames, 20, 3, swap=False)
    wrong = draw_prompts(frames, 20, 3, swap=True)
    for one, other in zip(right, wrong, strict=True):
        assert one.frame == other.frame and one.words != other.words
        assert (one.wanted == other.wanted).all()
        named = [colour for colour in ('red', 'green', 'blue', 'yellow') if colour in other.words]
        assert frames.present[other.frame, ['red', 'green', 'blue', 'yellow'].index(named[0])]


def test_shuffling_shows_each_prompt_another_picture() -> None:
    frames = make_frames()
    frames.images[0], frames.images[1] = 0, 200
    prompts = [Prompt(frame=0, words='x', wanted=FORWARD * 0),
               Prompt(frame=1, words='x', wanted=FORWARD)]
    assert score_actions(_reader(), frames, prompts).exact == pytest.approx([1.0] * 7)
    shuffled = score_actions(_reader(), frames, prompts, shuffle=True)
    assert shuffled.exact == pytest.approx([0, 1, 1, 1, 1, 1, 0])
    assert shuffled.l1[0] == pytest.approx(1.0)


def test_the_majority_answers_every_prompt_with_the_commonest_bin() -> None:
    frames = make_frames()
    task = [(verb, colour) for verb, colour, _ in robot_tasks()].index(('touch', 'red'))
    frames.actions[...] = np.nan
    frames.actions[:, task] = FORWARD
    assert frames.present[:, RED].all() and BLUE != RED
    prompts = [Prompt(frame=0, words='x', wanted=FORWARD),
               Prompt(frame=0, words='x', wanted=-FORWARD)]
    score = score_majority(_reader(), frames, prompts)
    assert score.exact[0] == 0.5 and score.near[1] == 1.0
