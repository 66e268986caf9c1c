"""Recorded episodes without bags: a block that moves over a shaded ground, an action per frame."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np

PERIOD_S = 0.2
START_NS = 1_700_000_000_000_000_000


def picture(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Return an (H, W, 3) uint8 picture whose block is at a place of its own for each number."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(40, 200, width)
    image[..., 1] = np.linspace(200, 60, height)[:, None]
    image[..., 2] = 90
    left = 4 * (number % (width // 4 - 3))
    image[height // 4:height // 4 + 12, left:left + 12] = (220, 210, 30)
    return image


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB."""
    return float(10.0 * np.log10(255.0 ** 2 / np.mean((one.astype(float) - other) ** 2)))


def actions(count: int, seed: int = 0) -> np.ndarray:
    """Return (N, 7) actions of a few millimetres and degrees, the gripper in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(scale=[0.01] * 3 + [0.05] * 3 + [1.0], size=(count, 7))
    drawn[:, 6] = rng.random(count)
    return drawn


@dataclass(eq=False)
class FakeEpisode:
    """A frame every PERIOD_S; first: number of its first picture."""

    actions: np.ndarray
    instruction: str = 'pick up the red block'
    first: int = 0
    size: tuple[int, int] = (48, 64)
    path: Path = Path('monday.mcap')
    stamp_ns: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.stamp_ns is None:
            self.stamp_ns = START_NS + np.arange(len(self.actions)) * round(1e9 * PERIOD_S)

    def images(self, step: int) -> Mapping[str, np.ndarray]:
        """Return the pictures of a step."""
        return {'primary': picture(self.first + step, self.size)}


@dataclass(frozen=True)
class FakeFrame:
    """One step of an episode."""

    episode: FakeEpisode
    step: int
    images: Mapping[str, np.ndarray]


@dataclass
class FakeRecorded:
    """Episodes; damaged: (episode, step) whose pictures cannot be read."""

    episodes: Sequence[FakeEpisode]
    damaged: Sequence[tuple[int, int]] = ()
    skipped: dict[str, int] = field(default_factory=dict)

    def frames(self, wanted):
        """Yield the wanted steps whose pictures can be read."""
        for number, (episode, steps) in enumerate(zip(self.episodes, wanted, strict=True)):
            for step in steps:
                if (number, step) not in self.damaged:
                    yield FakeFrame(episode, step, episode.images(step))
