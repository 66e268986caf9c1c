"""Numbers that every report needs: success rates with intervals, round steps of axes."""

import math

# Two-sided 95 % quantile of the normal distribution.
_Z_95 = 1.959963984540054


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


def nice_step(span: float, wanted: int) -> float:
    """Return a step of 1, 2 or 5 times a power of ten giving about `wanted` steps; span > 0."""
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw)


def percent_text(share: float | None) -> str:
    """
    Return '58' of a share of 0 to 1 in percent; a dash for None.

    399 of 400 are not '100': there are decimals, three at most, where whole numbers would say
    that of a share that is neither none nor all.
    """
    if share is None:
        return '-'
    value = round(100 * share, 3)
    for digits in range(4):
        text = f'{value:.{digits}f}'
        if value in (0.0, 100.0) or float(text) not in (0.0, 100.0):
            break
    return text
