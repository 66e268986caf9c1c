"""Success rates with intervals, and percentiles. Pure functions of numbers."""

from collections.abc import Sequence
import math

# Two-sided 95 % quantile of the normal distribution.
_Z_95 = 1.959963984540054

PERCENTILES = (50, 95, 99)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """
    Return the 95 % Wilson score interval (low, high) of a success rate, both in [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or at all
    successes. Without trials nothing is known: (0, 1). Raises ValueError unless
    0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(
            f'expected 0 <= successes <= trials, found {successes} of {trials}')
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    z2 = _Z_95 ** 2
    centre = rate + z2 / (2 * trials)
    spread = _Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials ** 2))
    scale = 1 + z2 / trials
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the percentile (linear interpolation) of finite values; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return {'p50': ., 'p95': ., 'p99': .} in the unit of the values; None without values."""
    return {f'p{percent}': percentile(values, percent) for percent in PERCENTILES}


def success_entry(outcomes: Sequence[bool]) -> dict[str, object]:
    """Return {'success', 'episodes', 'rate', 'interval_95'} of the outcomes of episodes."""
    successes = sum(outcomes)
    return {
        'success': successes,
        'episodes': len(outcomes),
        'rate': successes / len(outcomes) if outcomes else None,
        'interval_95': list(wilson_interval(successes, len(outcomes))),
    }
