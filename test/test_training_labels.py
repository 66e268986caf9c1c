"""Labels are ids that execution can decode, at the places the model predicts them from."""

import numpy as np
import pytest
from training_frames import BLUE
from training_frames import GREEN
from training_frames import make_frames
from training_frames import RED

from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import build_action_tokenizer
from vla_policy_node.action_tokenizer import text_number_ids
from vla_policy_node.prompts import build_action_prompt
from vla_policy_node.training.labels import collate
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.questions import ask_where
from vla_policy_node.training.questions import draw_question
from vla_policy_node.training.questions import KINDS
from vla_policy_node.training.questions import WORDS
from vla_policy_node.training.vocabulary import build_tokenizer
from vla_policy_node.vla_config import PromptConfig
from vla_policy_node.vla_config import TokenizerConfig

PROMPT = PromptConfig.named('instruction_first')
TEXTS = [*WORDS, 'action', 'answer', *(text for _, _, texts in robot_tasks() for text in texts)]
TOKENIZER = build_tokenizer(TEXTS)
STATS = NormStats(q01=[-0.04] * 3 + [0.0] * 4, q99=[0.04] * 3 + [0.0] * 3 + [1.0],
                  mask=[True] * 6 + [False])


def _actions(plan_length: int) -> ActionTokenizer:
    config = TokenizerConfig(scheme='text', separator='', plan_length=plan_length)
    return build_action_tokenizer(config, **text_number_ids(
        lambda text: TOKENIZER(text)['input_ids'], ''))


def _builder(plan_length: int = 2) -> LabelBuilder:
    return LabelBuilder(TOKENIZER, _actions(plan_length), PROMPT, STATS)


def test_an_action_label_decodes_to_the_action_and_the_target() -> None:
    action = np.array([0.02, -0.01, 0.04, 0.0, 0.0, 0.0, 1.0])
    sample = _builder().action('touch the red block', action, (0.25, 0.75))
    decoded = _actions(2).decode(sample.answer)
    physical = STATS.unnormalize(decoded.actions)[0]
    assert np.abs(physical - action)[:3].max() < 0.04 / 256 + 1e-9
    assert physical[6] == pytest.approx(1.0, abs=1 / 128)
    assert decoded.plan == pytest.approx((-0.5, 0.5), abs=1 / 128)


def test_without_a_plan_an_action_is_seven_tokens() -> None:
    sample = _builder(0).action('touch the red block', np.zeros(7), (0.5, 0.5))
    assert len(sample.answer) == 7


def test_the_prompt_is_that_of_execution_with_the_image_cut_out() -> None:
    before, after = _builder().action_prompt('Touch the RED block')
    whole = TOKENIZER(build_action_prompt(PROMPT, 'Touch the RED block'))['input_ids']
    image = TOKENIZER.convert_tokens_to_ids('<image>')
    assert [*before, image, *after] == whole
    assert TOKENIZER.unk_token_id not in whole


def test_a_pointing_answer_uses_the_action_numbers_and_ends() -> None:
    question = ask_where(make_frames(), 0, BLUE)
    sample = _builder().question(question)
    numbers = TOKENIZER.convert_ids_to_tokens(sample.answer)
    assert numbers == ['208', '176', '<eos>']


def test_an_absent_block_is_nowhere() -> None:
    assert ask_where(make_frames(), 0, GREEN).words == ('nowhere',)


def test_every_question_can_be_written_without_unknown_words() -> None:
    rng = np.random.default_rng(0)
    frames, builder = make_frames(), _builder()
    kinds = set()
    for _ in range(400):
        question = draw_question(frames, 0, rng, pointing_only=False)
        sample = builder.question(question)
        kinds.add(question.kind)
        assert TOKENIZER.unk_token_id not in (*sample.before, *sample.after, *sample.answer)
    assert kinds == set(KINDS)


def test_a_task_points_at_its_own_block() -> None:
    frames = make_frames()
    mixture = Mixture(frames, _builder(), robot_tasks())
    for task, (_, colour, _) in enumerate(robot_tasks()):
        if colour in ('red', 'blue'):
            wanted = frames.block_uv[0, RED if colour == 'red' else BLUE] * 2 - 1
            plan = _actions(2).decode(mixture.task(frames, 0, task).answer).plan
            assert plan == pytest.approx(wanted, abs=1 / 128)


def test_the_shares_of_the_sources_are_kept() -> None:
    mixture = Mixture(make_frames(), _builder(), robot_tasks())
    samples, owners = mixture.draw(
        np.random.default_rng(0), make_frames(100), prompts=10,
        shares={'robot': 0.7, 'questions': 0.3}, pointing_only=False)
    robot = sum(sample.source == 'robot' for sample in samples)
    assert len(samples) == len(owners) == 1000
    assert 650 < robot < 750


def test_only_answers_carry_loss_and_stand_where_they_are_predicted() -> None:
    builder = _builder()
    sample = builder.action('pick up the red block', np.zeros(7), (0.5, 0.5))
    batch = collate(
        [sample], [0], np.random.default_rng(0), image_tokens=16, kept_tokens=16, length=40,
        answer_length=9, pad_id=0)
    assert batch.weights.sum() == len(sample.answer) == 9
    for column, label in zip(batch.columns[0], batch.labels[0], strict=True):
        assert batch.ids[0, column + 1] == label
    last_prompt_token = batch.ids[0, batch.columns[0, 0]]
    assert TOKENIZER.convert_ids_to_tokens(int(last_prompt_token)) == 'action'


def test_left_out_image_tokens_keep_their_positions() -> None:
    sample = _builder().question(ask_where(make_frames(), 0, RED))
    batch = collate(
        [sample], [0], np.random.default_rng(0), image_tokens=16, kept_tokens=4, length=40,
        answer_length=9, pad_id=0)
    start = len(sample.before)
    slots = np.flatnonzero(batch.image_slots[0])
    assert (batch.positions[0, slots] == start + batch.kept[0]).all()
    assert batch.positions[0, slots[-1] + 1] == start + 16


def test_a_sample_that_does_not_fit_is_refused() -> None:
    sample = _builder().question(ask_where(make_frames(), 0, RED))
    with pytest.raises(ValueError, match='expected at most 10 tokens'):
        collate([sample], [0], np.random.default_rng(0), image_tokens=16, kept_tokens=16,
                length=10, answer_length=9, pad_id=0)


def test_mirroring_turns_left_into_right_everywhere() -> None:
    mixture = Mixture(make_frames(), _builder(), robot_tasks())
    plain = make_frames(64)
    picked = Mixture(plain, _builder(), robot_tasks()).pick(
        np.random.default_rng(0), 64, mirror=True)
    mirrored = picked.blocks[:, RED, 1] > 0
    assert 16 < mirrored.sum() < 48
    one = picked.take(np.flatnonzero(mirrored)[:1])
    assert (one.images[0] == plain.images[0, :, ::-1]).all()
    assert one.block_uv[0, RED, 0] == pytest.approx(0.81)
    assert one.tool[0, 1] == pytest.approx(-0.1)
    names = [(verb, colour) for verb, colour, _ in robot_tasks()]
    left, right = names.index(('push left', 'red')), names.index(('push right', 'red'))
    assert one.actions[0, left, 1] == pytest.approx(-plain.actions[0, right, 1])
    assert mixture.task(one, 0, left).source == 'robot'


def test_tasks_at_the_block_the_tool_is_at_can_be_drawn_more_often() -> None:
    frames = make_frames(50)
    frames.tool[:] = frames.blocks[:, BLUE]
    builder = _builder()
    drawn = {}
    for emphasis in (0.0, 20.0):
        samples, _ = Mixture(frames, builder, robot_tasks()).draw(
            np.random.default_rng(0), frames, prompts=4, shares={'robot': 1.0},
            pointing_only=False, near_emphasis=emphasis)
        blue = TOKENIZER.convert_tokens_to_ids('blue')
        drawn[emphasis] = sum(blue in sample.before for sample in samples) / len(samples)
    assert 0.4 < drawn[0.0] < 0.6
    assert drawn[20.0] > 0.9
