"""Success rates with intervals, and percentiles. Pure functions of numbers."""

from collections.abc import Sequence
import math

from vla_policy_node.statistics import wilson_interval

PERCENTILES = (50, 95, 99)


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
