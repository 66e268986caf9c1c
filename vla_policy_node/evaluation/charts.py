"""Small SVG drawings for the report, coloured by its style sheet; strings in, strings out."""

from collections.abc import Sequence
import math

from markupsafe import Markup

from vla_policy_node.statistics import nice_step

# Room around the histogram for its axis, in view-box units (about 1 px on a phone).
_WIDTH = 440
_HEIGHT = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 34, 26

_LABEL_CHARACTER = 7.6

_PATH_WIDTH = 160
_PATH_HEIGHT = 120
_PATH_POINTS = 120
# The middle and the scale of the part of the table that a tool path is drawn in, base frame.
_PATH_CENTRE_M = (0.49, 0.0)
_PATH_UNITS_PER_M = 280.0


def histogram(
    values: Sequence[float], marks: Sequence[tuple[str, float]], unit: str, bins: int = 36,
) -> Markup:
    """
    Draw a histogram of `values` with vertical marks (label, value), both in `unit`.

    The axis starts at 0 and ends at the largest value. Without values: an empty string.
    """
    if not values:
        return Markup('')
    step = nice_step(max(max(values), 1e-6), 6)
    end = step * math.ceil(max(values) / step + 1e-9)
    counts = [0] * bins
    for value in values:
        counts[min(int(value / end * bins), bins - 1)] += 1
    plot_width = _WIDTH - _LEFT - _RIGHT
    base = _HEIGHT - _BOTTOM
    pitch = plot_width / bins
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart"'
             f' aria-label="histogram of {len(values)} values">']
    for index, count in enumerate(counts):
        height = count / max(counts) * (base - _TOP)
        parts.append(
            f'<rect class="bar" x="{_LEFT + index * pitch + 0.6:.1f}" y="{base - height:.1f}"'
            f' width="{pitch - 1.2:.1f}" height="{height:.1f}"/>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}"'
                 f' y2="{base}"/>')
    parts += _ticks(step, end, plot_width, base, unit)
    parts += _marks(marks, end, plot_width, base)
    return Markup(''.join(parts) + '</svg>')


def _ticks(step: float, end: float, plot_width: float, base: float, unit: str) -> list[str]:
    parts = []
    for index in range(round(end / step) + 1):
        anchor = 'start' if index == 0 else 'middle'
        text = f'{index * step:g}'
        if index == round(end / step):
            anchor, text = 'end', f'{text} {unit}'
        parts.append(f'<text class="tick" x="{_LEFT + index * step / end * plot_width:.1f}"'
                     f' y="{base + 17}" text-anchor="{anchor}">{text}</text>')
    return parts


def _marks(
    marks: Sequence[tuple[str, float]], end: float, plot_width: float, base: float,
) -> list[str]:
    parts = []
    free_from = [-math.inf, -math.inf]
    for label, value in marks:
        x = _LEFT + min(value / end, 1) * plot_width
        text = f'{label} {value:.0f}'
        width = _LABEL_CHARACTER * len(text)
        start = min(max(x - width / 2, 0), _WIDTH - width)
        # Two rows, so that close percentiles do not cover each other.
        row = 0 if start >= free_from[0] else 1
        free_from[row] = start + width + 6
        y = 12 + 14 * row
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 4}" y2="{base}"/>'
                     f'<text class="label" x="{start:.1f}" y="{y}">{text}</text>')
    return parts


def tool_path(samples: Sequence[tuple[float, float, float, float]]) -> Markup:
    """
    Draw a tool path from above: (t, x, y, z) samples, base frame [m].

    Turned as the camera in front of the robot sees it: x down, y to the right. The start is a
    ring, the end a dot. Without samples: an empty table.
    """
    every = max(1, math.ceil(len(samples) / _PATH_POINTS))
    points = [_table_point(x, y) for _, x, y, _ in [*samples[::every], *samples[-1:]]]
    parts = [f'<svg viewBox="0 0 {_PATH_WIDTH} {_PATH_HEIGHT}" role="img" class="path"'
             ' aria-label="tool path seen from above">']
    if points:
        line = ' '.join(f'{u:.1f},{v:.1f}' for u, v in points)
        (u0, v0), (u1, v1) = points[0], points[-1]
        parts.append(f'<polyline points="{line}"/>'
                     f'<circle class="start" cx="{u0:.1f}" cy="{v0:.1f}" r="3.5"/>'
                     f'<circle class="end" cx="{u1:.1f}" cy="{v1:.1f}" r="3.5"/>')
    return Markup(''.join(parts) + '</svg>')


def _table_point(x: float, y: float) -> tuple[float, float]:
    return (_PATH_WIDTH / 2 + (y - _PATH_CENTRE_M[1]) * _PATH_UNITS_PER_M,
            _PATH_HEIGHT / 2 + (x - _PATH_CENTRE_M[0]) * _PATH_UNITS_PER_M)
