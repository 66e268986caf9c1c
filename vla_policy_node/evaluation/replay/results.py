"""
What a policy answered to recorded frames, beside what was done there.

Arrays only: knows nothing of checkpoints, bags or files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

import numpy as np

from vla_policy_node.action_bins import N_BINS
from vla_policy_node.action_space import ACTION_DIM

# In place of a bin number where there is none.
NO_BIN = -1


class ReplayedError(ValueError):
    """Replayed frames do not fit together; one line names the field, what was found, the mend."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """
    N frames that one policy looked at, K actions each, in canonical units.

    An action is [x, y, z] m, a rotation vector [rad], the gripper in [0 closed, 1 open].

    name: checkpoint and quantization, for tables. episode: (N,) int64. stamp_ns: (N,) int64.
    recorded: (N, K, 7) float64, what was done from the frame on; NaN behind the episode's end
    and where unusable. previous: (N, 7) float64, what was done in the control period before the
    frame, also where only every n-th frame was replayed; NaN at the episode's start and where
    unusable. predicted: (N, K, 7) float64, NaN where decoding failed. recorded_bins,
    predicted_bins: (N, K, 7) int64 in 0..255 through the checkpoint's normalisation and
    tokenizer, -1 where the action is NaN or the policy has no bins. confidence: (N, K, 7)
    float32 in [0, 1], probability of the chosen bin, NaN where there is none. latency_ms: (N,)
    float64 per inference, NaN where not measured. timing_ms: part of the inference -> (N,)
    float64. scale: (7,) float64, q99 - q01 of the action space's statistics; normalised errors
    are errors divided by it, and a dimension of scale 0 has none. mean_action: (7,) float64,
    the data set's mean. live: what only live mode knows, name -> a number, a text, or an array
    of which percentiles are reported; e.g. rate_hz, dropped, frame_age_ms (M,).

    The order of the frames is free: time is in stamp_ns. Raises ReplayedError when shapes
    disagree or a bin number is out of range.
    """

    name: str
    episode: np.ndarray
    stamp_ns: np.ndarray
    recorded: np.ndarray
    previous: np.ndarray
    predicted: np.ndarray
    recorded_bins: np.ndarray
    predicted_bins: np.ndarray
    confidence: np.ndarray
    latency_ms: np.ndarray
    scale: np.ndarray
    mean_action: np.ndarray
    timing_ms: Mapping[str, np.ndarray] = field(default_factory=dict)
    live: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        """Check that all arrays speak of the same frames."""
        if self.recorded.ndim != 3 or self.recorded.shape[2] != ACTION_DIM:
            raise ReplayedError(f'recorded: expected shape (N, K, {ACTION_DIM}), found '
                                f'{self.recorded.shape}; stack the chunks of all frames')
        frames = self.recorded.shape[0]
        self._check_shapes(('predicted', 'recorded_bins', 'predicted_bins', 'confidence'),
                           self.recorded.shape)
        self._check_shapes(('previous',), (frames, ACTION_DIM))
        self._check_shapes(('episode', 'stamp_ns', 'latency_ms'), (frames,))
        self._check_shapes(('scale', 'mean_action'), (ACTION_DIM,))
        for part, values in self.timing_ms.items():
            _check_shape(f'timing_ms[{part!r}]', values, (frames,))
        for name in ('recorded_bins', 'predicted_bins'):
            _check_bins(name, getattr(self, name))

    def _check_shapes(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        for name in names:
            _check_shape(name, getattr(self, name), shape)

    @property
    def frames(self) -> int:
        """Number of frames, N."""
        return self.recorded.shape[0]

    @property
    def horizon(self) -> int:
        """Number of actions per frame, K."""
        return self.recorded.shape[1]

    def comparable(self) -> np.ndarray:
        """Return (N, K, 7) bool: True where a prediction stands beside a recorded number."""
        return np.isfinite(self.recorded) & np.isfinite(self.predicted)


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ReplayedError(f'{name}: expected shape {shape} as the recorded actions have, found '
                            f'{values.shape}; give one row per frame')


def _check_bins(name: str, bins: np.ndarray) -> None:
    if bins.size and not NO_BIN <= bins.min() <= bins.max() < N_BINS:
        raise ReplayedError(f'{name}: expected bin numbers 0..{N_BINS - 1}, or {NO_BIN} for none, '
                            f'found {bins.min()}..{bins.max()}; give bins, not token ids')
