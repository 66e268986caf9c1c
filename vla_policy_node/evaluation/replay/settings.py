"""How replayed frames are measured: the numbers that a metric depends on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSettings:
    """
    What the metrics depend on; every summary says it.

    within_bins: distances in bins up to which a token counts as nearly right. min_translation_m,
    min_rotation_rad: directions are compared where both vectors are longer. event_window_s: how
    far apart an opening or closing of the gripper may be and still be the same one, inclusive.
    calibration_bins: parts of [0, 1] that confidences are sorted into. bootstrap_samples, seed:
    of the intervals.
    """

    within_bins: tuple[int, ...] = (1, 5)
    min_translation_m: float = 1e-3
    min_rotation_rad: float = 5e-3
    event_window_s: float = 1.0
    calibration_bins: int = 10
    bootstrap_samples: int = 2000
    seed: int = 0
