"""
Labelled frames in memory: pictures at model resolution and what the simulator knew about each.

Knows nothing of tokens or of the model. The privileged columns become labels and questions;
the policy sees the picture only.
"""

from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
import hashlib
from pathlib import Path

import numpy as np

COLOURS = ('red', 'green', 'blue', 'yellow')


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """
    N frames; absent blocks are NaN.

    images (N, H, W, 3) uint8 RGB; blocks (N, 4, 3), tool (N, 3) float32 m in the base frame;
    opening (N,) float32 0 closed .. 1 open; held (N,) int8 colour or -1; block_uv (N, 4, 2),
    tool_uv (N, 2) float32 image positions, u right, v down, [0, 1] inside the picture; actions
    (N, T, 7) float32 canonical expert deltas for every task, NaN where its block is absent;
    scene (N,) int32.
    """

    images: np.ndarray
    blocks: np.ndarray
    tool: np.ndarray
    opening: np.ndarray
    held: np.ndarray
    block_uv: np.ndarray
    tool_uv: np.ndarray
    actions: np.ndarray
    scene: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def present(self) -> np.ndarray:
        """(N, 4) bool: is there a block of that colour."""
        return np.isfinite(self.blocks[..., 0])

    def take(self, chosen: np.ndarray) -> 'Frames':
        """Return the frames of an index or mask array."""
        return Frames(**{name: getattr(self, name)[chosen] for name in _NAMES})

    def mirrored(self, chosen: np.ndarray, swap: np.ndarray) -> 'Frames':
        """
        Mirror the `chosen` (N,) bool frames left to right; arm and light are symmetric.

        swap: (T,) the task that each task becomes (push left and push right change places).
        """
        flip = np.where(chosen, -1.0, 1.0).astype(np.float32)
        blocks, tool, actions = self.blocks.copy(), self.tool.copy(), self.actions.copy()
        blocks[..., 1] *= flip[:, None]
        tool[:, 1] *= flip
        actions[chosen] = actions[chosen][:, swap]
        actions[..., 1] *= flip[:, None]
        return Frames(
            images=np.where(
                chosen[:, None, None, None], self.images[:, :, ::-1], self.images),
            blocks=blocks, tool=tool, opening=self.opening, held=self.held,
            block_uv=_mirror_uv(self.block_uv, chosen[:, None]),
            tool_uv=_mirror_uv(self.tool_uv, chosen), actions=actions, scene=self.scene)

    def without_tasks(self, tasks: np.ndarray) -> 'Frames':
        """Return the frames without the expert's actions for the tasks of a (T,) bool mask."""
        actions = np.where(tasks[:, None], np.float32(np.nan), self.actions)
        return replace(self, actions=actions)

    def save(self, path: Path) -> None:
        """Write one .npz, under its final name only when complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix('.partial.npz')
        np.savez(partial, **{name: getattr(self, name) for name in _NAMES})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> 'Frames':
        """Read what save wrote."""
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in _NAMES})

    def fingerprint(self) -> str:
        """Return a sha256 over all columns."""
        digest = hashlib.sha256()
        for name in _NAMES:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()


def _mirror_uv(uv: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.stack([np.where(chosen, 1 - uv[..., 0], uv[..., 0]), uv[..., 1]], axis=-1)


_NAMES = tuple(field.name for field in fields(Frames))


def concatenate(parts: list[Frames]) -> Frames:
    """Join frames in order."""
    return Frames(**{
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES
    })
