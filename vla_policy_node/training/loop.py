"""
The optimisation steps: one for the alignment stage, one for the mixture.

Knows nothing of files, simulators or configuration files beyond one stage's section.
"""

from collections.abc import Iterator
import math

import numpy as np
import torch
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from vla_policy_node.action_space import NormStats
from vla_policy_node.training.alignment import alignment_targets
from vla_policy_node.training.alignment import AlignmentHeads
from vla_policy_node.training.config import AlignmentStage
from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.labels import Batch
from vla_policy_node.training.labels import collate
from vla_policy_node.training.labels import Sample
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.model import AnswerModel
from vla_policy_node.training.model import image_features_and_early

SINGLE_TOKENS = 4       # random image tokens per picture that the alignment head sees
_CLIP_NORM = 1.0
_WEIGHT_DECAY = 0.02


class NonFiniteLossError(ValueError):
    """The loss is not a number; training cannot go on."""


class Learner:
    """The model, its alignment heads, the optimiser and one step of either kind."""

    def __init__(
        self, model: LlavaForConditionalGeneration, stats: NormStats, *, number_ids: np.ndarray,
        sigma: float, compiled: bool, length: int, answer_length: int, targets: int,
    ) -> None:
        self.model = model
        self.stats = stats
        self.length = length
        self.answer_length = answer_length
        self.answers = AnswerModel(model, compiled=compiled)
        self.heads = AlignmentHeads(model.config.text_config.hidden_size, targets)
        seeing = [*model.model.vision_tower.parameters(),
                  *model.model.multi_modal_projector.parameters(), *self.heads.parameters()]
        talking = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
        self.optimiser = torch.optim.AdamW(
            [{'params': seeing}, {'params': talking}], lr=1e-3, betas=(0.9, 0.95),
            weight_decay=_WEIGHT_DECAY, fused=True)
        self._soft = soft_targets(model.config.text_config.vocab_size, number_ids, sigma)

    def alignment_step(
        self, mixture: Mixture, rng: np.random.Generator, stage: AlignmentStage, lr: float
    ) -> dict[str, float]:
        """Train vision tower, projector and heads on random frames."""
        frames = mixture.pick(rng, stage.images, mirror=stage.mirror)
        with torch.autocast('cpu', torch.bfloat16):
            pictures = torch.from_numpy(frames.images)
            features, early = image_features_and_early(self.model, pictures)
            loss, _ = self._align(features, early, frames, rng)
        self._update(loss, lr)
        return {'alignment': float(loss.detach())}

    def mixture_step(
        self, mixture: Mixture, rng: np.random.Generator, stage: MixtureStage, lr: float
    ) -> dict[str, float]:
        """Train everything on one batch of answers."""
        frames = mixture.pick(rng, stage.images, mirror=stage.mirror)
        samples, owners = mixture.draw(
            rng, frames, prompts=stage.prompts_per_image, shares=stage.shares,
            pointing_only=stage.pointing_only, near_emphasis=stage.near_emphasis)
        batch = self._collate(samples, owners, rng, stage.image_tokens)
        pictures = torch.from_numpy(frames.images)
        with torch.autocast('cpu', torch.bfloat16):
            with torch.set_grad_enabled(stage.vision_lr_scale > 0):
                features, early = image_features_and_early(self.model, pictures)
            losses = self.answer_losses(features, batch)
            weights = torch.from_numpy(batch.weights)
            loss = (losses * weights).sum() / weights.sum()
            total, figures = loss, {}
            if stage.alignment_weight:
                aligned, _ = self._align(features, early, frames, rng)
                total = loss + stage.alignment_weight * aligned
                figures['alignment'] = float(aligned.detach())
        self._update(total, lr, vision_lr_scale=stage.vision_lr_scale)
        return {**figures, **_per_source(losses.detach(), weights, batch.sources)}

    def answer_losses(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the (B, A) loss of every answer token."""
        logits = self.answer_logits(features, batch).float()
        targets = self._soft[torch.from_numpy(batch.labels)]
        return -(targets * functional.log_softmax(logits, dim=-1)).sum(dim=-1)

    def answer_logits(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return (B, A, vocabulary) teacher-forced logits of the answers."""
        image = torch.from_numpy(batch.image)
        seen = features[image[:, None], torch.from_numpy(batch.kept)].flatten(0, 1)
        rows = torch.arange(len(batch.ids))[:, None].expand(batch.columns.shape)
        return self.answers(
            seen, torch.from_numpy(batch.ids), torch.from_numpy(batch.image_slots),
            torch.from_numpy(batch.positions), rows, torch.from_numpy(batch.columns))

    def collate_all(self, samples: list[Sample], owners: list[int]) -> Batch:
        """Lay samples out with every image token."""
        tokens = self.model.config.image_seq_length
        return self._collate(samples, owners, np.random.default_rng(0), tokens)

    def _collate(
        self, samples: list[Sample], owners: list[int], rng: np.random.Generator, kept: int
    ) -> Batch:
        return collate(
            samples, owners, rng, image_tokens=self.model.config.image_seq_length,
            kept_tokens=kept, length=self.length + kept, answer_length=self.answer_length,
            pad_id=self.model.config.text_config.pad_token_id)

    def _align(
        self, features: torch.Tensor, early: torch.Tensor, frames: Frames,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        regression, classes = alignment_targets(frames, self.stats)
        tokens = rng.integers(features.shape[1], size=(len(frames), SINGLE_TOKENS))
        return self.heads(
            features, early, torch.from_numpy(regression), torch.from_numpy(classes),
            torch.from_numpy(tokens))

    def _update(
        self, loss: torch.Tensor, lr: float, *, vision_lr_scale: float = 1.0
    ) -> None:
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteLossError(
                f'expected a finite loss, found {float(loss.detach())}; lower the learning rate')
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group['params']]
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        seeing, talking = self.optimiser.param_groups
        seeing['lr'], talking['lr'] = lr * vision_lr_scale, lr
        self.optimiser.step()


def _per_source(
    losses: torch.Tensor, weights: torch.Tensor, sources: tuple[str, ...]
) -> dict[str, float]:
    figures = {}
    for source in sorted(set(sources)):
        mine = torch.tensor([name == source for name in sources])
        figures[source] = float((losses * weights)[mine].sum() / weights[mine].sum())
    return figures


def soft_targets(vocabulary: int, number_ids: np.ndarray, sigma: float) -> torch.Tensor:
    """Return (V, V) float32 target distributions: one-hot, but numbers spread to neighbours."""
    table = np.eye(vocabulary, dtype=np.float32)
    if sigma > 0:
        place = np.arange(len(number_ids))
        spread = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
        table[np.ix_(number_ids, number_ids)] = spread / spread.sum(axis=1, keepdims=True)
    return torch.from_numpy(table)


def learning_rates(steps: int, warmup: int, first: float, last: float) -> Iterator[float]:
    """Yield one rate per step: a linear warm-up, then a cosine from `first` to `last`."""
    for step in range(steps):
        if step < warmup:
            yield first * (step + 1) / warmup
        else:
            progress = (step - warmup) / max(1, steps - warmup)
            yield last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))
