"""Measures a model on held-out frames: pointing, plans and actions against the expert."""

from collections.abc import Sequence

import numpy as np
import torch

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.labels import Sample
from vla_policy_node.training.labels import tasks_of
from vla_policy_node.training.loop import Learner
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.model import image_features
from vla_policy_node.training.questions import ask_where

_CHUNK = 64
_TASKS_PER_FRAME = 3


class Validator:
    """
    A fixed set of pointing questions and tasks on held-out frames.

    `measure` returns figures in pixels of the model's image and in normalised action units; the
    model sees every image token.
    """

    def __init__(
        self, mixture: Mixture, builder: LabelBuilder, actions: ActionTokenizer,
        stats: NormStats, *, frames: int, seed: int,
    ) -> None:
        self._mixture = mixture
        self._actions = actions
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(mixture.frames))[:frames]
        held = mixture.frames
        self._points, self._tasks = [], []
        for index in map(int, np.sort(chosen)):
            for colour in np.flatnonzero(held.present[index]):
                self._points.append((
                    index, builder.question(ask_where(held, index, int(colour))),
                    held.block_uv[index, colour]))
            tasks = tasks_of(held, index)
            for task in rng.choice(tasks, min(len(tasks), _TASKS_PER_FRAME), replace=False):
                self._tasks.append((
                    index, mixture.task(held, index, int(task)),
                    stats.normalize(held.actions[index, task].astype(np.float64))))

    def measure(self, learner: Learner) -> dict[str, float]:
        """Return pointing_px (median), pointing_mean_px and action_error (mean absolute)."""
        values = torch.tensor(self._actions.bin_values, dtype=torch.float32)
        side = learner.model.config.vision_config.image_size
        scores = self._logits(learner, [(index, sample) for index, sample, _ in self._points])
        found = values[scores[:, :2].argmax(-1)].numpy() * 0.5 + 0.5
        wanted = np.stack([point for _, _, point in self._points])
        error = np.linalg.norm(found - wanted, axis=1) * side
        scores = self._logits(learner, [(index, sample) for index, sample, _ in self._tasks])
        plan = self._actions.plan_length
        expected = (scores.softmax(-1) @ values)[:, plan:plan + ACTION_DIM].numpy()
        labels = np.stack([action for _, _, action in self._tasks])
        return {
            'pointing_px': float(np.median(error)), 'pointing_mean_px': float(error.mean()),
            'action_error': float(np.abs(expected - labels)[:, [0, 1, 2, 6]].mean()),
        }

    @torch.no_grad()
    def _logits(self, learner: Learner, rows: Sequence[tuple[int, Sample]]) -> torch.Tensor:
        """Return (L, A, 256) logits over the bins, teacher-forced."""
        bins = torch.from_numpy(self._actions.bin_token_ids.copy())
        images = self._mixture.frames.images
        with torch.autocast('cpu', torch.bfloat16), learner.answers.uncompiled():
            parts = []
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start:start + _CHUNK]
                seen, owners = np.unique([index for index, _ in chunk], return_inverse=True)
                features = image_features(learner.model, torch.from_numpy(images[seen]))
                batch = learner.collate_all([sample for _, sample in chunk], owners.tolist())
                parts.append(learner.answer_logits(features, batch).float()[:, :, bins])
        return torch.cat(parts)
