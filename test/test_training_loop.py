"""The optimisation steps: what the loss wants, how fast, and what stops them."""

import numpy as np
import pytest
from test_training_config import CONFIGURATIONS
import torch
from training_frames import make_frames

from vla_policy_node.training.alignment import alignment_targets
from vla_policy_node.training.alignment import AlignmentHeads
from vla_policy_node.training.config import AlignmentStage
from vla_policy_node.training.config import load_config
from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.loop import Learner
from vla_policy_node.training.loop import learning_rates
from vla_policy_node.training.loop import NonFiniteLossError
from vla_policy_node.training.loop import soft_targets
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.model import image_features
from vla_policy_node.training.model import initialise_patches
from vla_policy_node.training.parts import answer_length
from vla_policy_node.training.parts import build_labels
from vla_policy_node.training.parts import build_parts
from vla_policy_node.training.parts import Parts
from vla_policy_node.training.parts import prompt_length
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.parts import stats_of

pytestmark = pytest.mark.slow

CONFIG = load_config(CONFIGURATIONS / 'smoke.yaml')
ALIGN = next(stage for stage in CONFIG.stages if isinstance(stage, AlignmentStage))
MIX = [stage for stage in CONFIG.stages if isinstance(stage, MixtureStage)][-1]


def _learner() -> tuple[Learner, Mixture, Parts]:
    parts, frames = build_parts(CONFIG), make_frames(8)
    stats = stats_of(frames.actions)
    answer = answer_length(parts)
    targets, _ = alignment_targets(frames, stats)
    learner = Learner(
        parts.model, stats, number_ids=parts.actions.bin_token_ids, sigma=2.0, compiled=False,
        length=prompt_length(parts, answer), answer_length=answer, targets=targets.shape[1])
    return learner, Mixture(frames, build_labels(parts, stats), robot_tasks()), parts


def test_the_loss_of_a_mixture_step_falls_on_every_source() -> None:
    learner, mixture, _ = _learner()
    rng = np.random.default_rng(0)
    figures = [learner.mixture_step(mixture, rng, MIX, 2e-3) for _ in range(40)]
    for source in ('robot', 'questions'):
        losses = [figure[source] for figure in figures if source in figure]
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_alignment_loss_falls() -> None:
    learner, mixture, _ = _learner()
    rng = np.random.default_rng(0)
    losses = [learner.alignment_step(mixture, rng, ALIGN, 2e-3)['alignment'] for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_frozen_tower_does_not_move() -> None:
    learner, mixture, parts = _learner()
    stage = MIX.model_copy(update={'vision_lr_scale': 0.0, 'alignment_weight': 0.0})
    before = [p.clone() for p in parts.model.model.vision_tower.parameters()]
    learner.mixture_step(mixture, np.random.default_rng(0), stage, 1e-2)
    after = parts.model.model.vision_tower.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    learner, mixture, parts = _learner()
    with torch.no_grad():
        parts.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match='expected a finite loss, found nan'):
        learner.mixture_step(mixture, np.random.default_rng(0), MIX, 1e-3)


def test_the_features_are_those_of_the_model_that_execution_loads() -> None:
    _, mixture, parts = _learner()
    images = torch.from_numpy(mixture.frames.images[:2])
    initialise_patches(parts.model, torch.randint(0, 255, (60, 64, 64, 3), dtype=torch.uint8))
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.no_grad():
        wanted = parts.model.model.get_image_features(pixel_values=pixels)
        wanted = getattr(wanted, 'pooler_output', wanted)
        found = image_features(parts.model, images)
    assert torch.allclose(torch.stack(list(wanted)).reshape(found.shape), found, atol=1e-4)


def test_number_labels_spread_to_neighbours_and_words_do_not() -> None:
    table = soft_targets(300, np.arange(10, 266), 2.0)
    assert table[5].tolist() == [float(i == 5) for i in range(300)]
    assert table[110].argmax() == 110
    assert table[110, 109] == table[110, 111] > table[110, 114] > 0
    assert torch.allclose(table.sum(1), torch.ones(300))


def test_labels_are_one_hot_without_spread() -> None:
    assert torch.equal(soft_targets(300, np.arange(10, 266), 0.0), torch.eye(300))


def test_the_rate_warms_up_and_ends_at_the_last_one() -> None:
    rates = list(learning_rates(100, 10, 1.0, 0.1))
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_absent_blocks_have_no_alignment_target() -> None:
    frames = make_frames(2)
    regression, classes = alignment_targets(frames, stats_of(frames.actions))
    assert np.isnan(regression[:, 2:4]).all() and np.isfinite(regression[:, 0:2]).all()
    assert classes[0].tolist() == [1.0, 0.0, 1.0, 0.0, 4.0]


def test_alignment_heads_take_every_frame_without_a_number_going_wrong() -> None:
    frames = make_frames(3)
    regression, classes = alignment_targets(frames, stats_of(frames.actions))
    heads = AlignmentHeads(16, regression.shape[1])
    features = torch.randn(3, 4, 16)
    loss, pooled = heads(features, features, torch.from_numpy(regression),
                         torch.from_numpy(classes), torch.zeros(3, 2, dtype=torch.long))
    assert torch.isfinite(loss) and pooled.shape == regression.shape
