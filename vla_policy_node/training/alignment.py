"""
The global alignment stage: every image token learns to tell where everything is.

The pooled projector output, and single random image tokens, must predict positions, gripper
state and the expert's action for every task. The heads are thrown away afterwards; what stays
is that any image token can answer, which is what lets a small language model start to look.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vla_policy_node.action_space import NormStats
from vla_policy_node.training.frames import Frames

_METRES = 0.2       # scale of lengths, so that targets are about 1
_HELD_NOTHING = 4
_ACTIONS = 0.3      # weight of the expert's actions beside what is where
STATE_TARGETS = 26  # the first columns of the targets; actions follow
_OBJECTS = 5        # four blocks and the tool
_FINE = 0.2         # weight of the absolute error beside the squared one


def alignment_targets(frames: Frames, stats: NormStats) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, D) regression targets, NaN where undefined, and (N, 5) class targets."""
    count = len(frames)
    relative = (frames.blocks - frames.tool[:, None]) / _METRES
    regression = np.concatenate([
        frames.block_uv.reshape(count, -1) * 2 - 1,
        frames.tool_uv * 2 - 1,
        relative.reshape(count, -1),
        (frames.tool - np.array([0.5, 0.0, 0.1])) / _METRES,
        frames.opening[:, None] * 2 - 1,
        _normalised(frames.actions, stats)[..., [0, 1, 2, 6]].reshape(count, -1),
    ], axis=1).astype(np.float32)
    held = np.where(frames.held < 0, _HELD_NOTHING, frames.held)
    classes = np.concatenate([frames.present, held[:, None]], axis=1).astype(np.float32)
    return regression, classes


def _normalised(actions: np.ndarray, stats: NormStats) -> np.ndarray:
    missing = ~np.isfinite(actions)
    values = stats.normalize(np.where(missing, 0.0, actions))
    return np.where(missing, np.nan, values)


def _error(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    known = torch.isfinite(targets)
    difference = values[known] - targets[known]
    return difference.square().mean() + _FINE * difference.abs().mean()


class AlignmentHeads(nn.Module):
    """
    Three small heads: on the mean of the image tokens, on single ones, and on each for itself.

    The last one asks every token of the vision tower's first layer only which objects are centred
    in its own patch, and where. It is learnt within seconds and gives the later layers something
    to pass around.
    """

    def __init__(self, width: int, targets: int, hidden: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(),
                nn.Linear(hidden, targets + 4 + 5),
            )
            for _ in range(2)
        )
        self.local = nn.Linear(width, 3 * _OBJECTS)
        self._targets = targets

    def forward(
        self, features: torch.Tensor, early: torch.Tensor, regression: torch.Tensor,
        classes: torch.Tensor, tokens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the loss and the pooled regression (N, D).

        The first columns of `regression` are the objects' image positions in [-1, 1].

        features, early (N, S, width); regression (N, D); classes (N, 5); tokens (N, R) indices.
        """
        pooled = self.heads[0](features.mean(dim=1))
        rows = torch.arange(len(features))[:, None]
        single = self.heads[1](features[rows, tokens])
        loss = self._loss(pooled, regression, classes)
        repeats = tokens.shape[1]
        loss = loss + self._loss(
            single.flatten(0, 1), regression.repeat_interleave(repeats, 0),
            classes.repeat_interleave(repeats, 0))
        loss = loss + self._local_loss(early, regression)
        return loss, pooled[:, :self._targets]

    def _loss(
        self, output: torch.Tensor, regression: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        values, present, held = output.float().split([self._targets, 4, 5], dim=1)
        error = _error(values[:, :STATE_TARGETS], regression[:, :STATE_TARGETS])
        error = error + _ACTIONS * _error(values[:, STATE_TARGETS:], regression[:, STATE_TARGETS:])
        exists = functional.binary_cross_entropy_with_logits(present, classes[:, :4])
        holding = functional.cross_entropy(held, classes[:, 4].long())
        return error + 0.1 * exists + 0.1 * holding

    def _local_loss(self, features: torch.Tensor, regression: torch.Tensor) -> torch.Tensor:
        count, tokens, _ = features.shape
        side = round(tokens ** 0.5)
        uv = regression[:, :2 * _OBJECTS].unflatten(1, (_OBJECTS, 2)) * 0.5 + 0.5
        inside = torch.isfinite(uv).all(-1) & (uv >= 0).all(-1) & (uv < 1).all(-1)
        row, objects = torch.nonzero(inside, as_tuple=True)
        place = uv[row, objects] * side
        patch = place[:, 1].long() * side + place[:, 0].long()
        output = self.local(features).float().unflatten(2, (3, _OBJECTS))
        there = torch.zeros(count, tokens, _OBJECTS)
        there[row, patch, objects] = 1.0
        found = functional.binary_cross_entropy_with_logits(
            output[:, :, 0], there, pos_weight=torch.tensor(10.0))
        offset = output[row, patch, 1:, objects] - (place - place.floor())
        return found + offset.square().mean()
