"""
SVG drawings of a replay, coloured by its style sheet; numbers in, strings out.

Long episodes are thinned to the lowest and highest point per column, so that a spike of one
frame stays visible and the page stays small.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math

from markupsafe import escape
from markupsafe import Markup
import numpy as np

from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.statistics import nice_step

# Physical units as people read them: factor to them, and their name.
UNITS = (*((1e3, 'mm'),) * 3, *((180 / math.pi, '°'),) * 3, (1.0, ''))

# View-box units of an episode's chart, about 1 px on a wide page.
_WIDTH = 1040
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 6, 4, 24
_ROW, _GAP = 62, 16
_COLUMNS = 400
_MOST_STRIPS = 60
# Less than this is not blown up to the height of the chart: a share of the dimension's scale, and
# in the units of UNITS where the scale says that the dimension is constant.
_LEAST_SHARE = 0.1
_LEAST_SPAN = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0)
_GRIPPER_ENDS = np.array([0.0, 1.0])

# View-box units of the small charts, about 1 px on a phone.
_SMALL_WIDTH, _SMALL_HEIGHT = 440, 230
_SMALL_LEFT, _SMALL_RIGHT, _SMALL_TOP, _SMALL_BOTTOM = 44, 18, 10, 40
_LARGEST_DOT = 9.0


def kept_points(times: np.ndarray, values: np.ndarray, columns: int = _COLUMNS) -> np.ndarray:
    """
    Return which points (M,) int64 ascending of a line to draw: of every column its extremes.

    times: (T,) float64 ascending. values: (T,) float64 finite. The first and last point stay.
    """
    if len(times) <= 2 * columns:
        return np.arange(len(times))
    span = times[-1] - times[0] or 1.0
    column = np.minimum((times - times[0]) / span * columns, columns - 1).astype(np.int64)
    by_value = np.lexsort((values, column))
    edges = np.flatnonzero(np.diff(column[by_value], prepend=-1, append=columns))
    lowest, highest = by_value[edges[:-1]], by_value[edges[1:] - 1]
    return np.unique(np.concatenate([lowest, highest, [0, len(times) - 1]]))


def episode_chart(replayed: Replayed, number: int, against: Replayed | None = None) -> Markup:
    """
    Draw what was recorded and predicted in one episode, a row per dimension, over time.

    The first action of every chunk. against: a second policy, drawn over the same time.
    """
    order = _rows(replayed, number)
    start_ns = replayed.stamp_ns[order[0]]
    times = (replayed.stamp_ns[order] - start_ns) * 1e-9
    lines = [('recorded', times, replayed.recorded[order, 0]),
             ('predicted', times, replayed.predicted[order, 0])]
    if against is not None:
        others = _rows(against, number)
        lines.append(('against', (against.stamp_ns[others] - start_ns) * 1e-9,
                      against.predicted[others, 0]))
    end_s = float(times[-1]) or 1.0
    height = _TOP + len(DIM_NAMES) * (_ROW + _GAP) - _GAP + _BOTTOM
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" class="chart episode-chart" role="img"'
             f' aria-label="recorded and predicted actions of episode {number}">']
    for dim in range(len(DIM_NAMES)):
        curves = [(kind, at, values[:, dim] * UNITS[dim][0]) for kind, at, values in lines]
        parts.append(_row(dim, curves, end_s, replayed.scale[dim] * UNITS[dim][0]))
    parts += _time_axis(end_s, height - _BOTTOM)
    parts += _strips(times, lines, end_s, height - _BOTTOM)
    return Markup(''.join(parts) + '</svg>')


def _rows(replayed: Replayed, number: int) -> np.ndarray:
    rows = np.flatnonzero(replayed.episode == number)
    return rows[np.argsort(replayed.stamp_ns[rows], kind='stable')]


def _row(
    dim: int, curves: Sequence[tuple[str, np.ndarray, np.ndarray]], end_s: float, scale: float,
) -> str:
    top = _TOP + dim * (_ROW + _GAP)
    ends = [_GRIPPER_ENDS] if DIM_NAMES[dim] == 'gripper' else []
    low, high = _range([*(values for _, _, values in curves), *ends],
                       max(_LEAST_SHARE * scale, _LEAST_SPAN[dim]))
    unit = UNITS[dim][1]
    parts = [f'<text class="name" x="0" y="{top + _ROW / 2 + 4:.1f}">{DIM_NAMES[dim]}'
             f'{f" [{unit}]" if unit else ""}</text>']

    def height_of(values: np.ndarray) -> np.ndarray:
        return top + (high - values) / (high - low) * _ROW

    for tick in _ticks(low, high, 4):
        y = float(height_of(np.array(tick)))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}"'
                     f' y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 4:.1f}"'
                     f' text-anchor="end">{tick:g}</text>')
    parts += [f'<path class="{kind}" d="{_path(times, values, end_s, height_of)}"/>'
              for kind, times, values in curves]
    return ''.join(parts)


def _range(lines: Sequence[np.ndarray], least: float) -> tuple[float, float]:
    found = np.concatenate(lines)
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    missing = max(0.0, least - (high - low))
    margin = 0.06 * (high - low) + missing / 2
    return low - margin, high + margin


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    step = nice_step(high - low, wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounding keeps 3 * 0.1 from being written with all its digits; adding 0 drops the sign of -0.
    return [round(index * step, 9) + 0.0 for index in range(first, last + 1)]


def _path(
    times: np.ndarray, values: np.ndarray, end_s: float,
    height_of: Callable[[np.ndarray], np.ndarray],
) -> str:
    """Return the path of a line, interrupted where there are no numbers."""
    places = np.flatnonzero(np.isfinite(values))
    if not places.size:
        return ''
    pieces = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    share = max(len(values), 1)
    drawn = []
    for piece in pieces:
        # Every piece gets its part of the columns.
        columns = max(1, round(_COLUMNS * len(piece) / share))
        kept = piece[kept_points(times[piece], values[piece], columns)]
        x, y = _x(times[kept], end_s), height_of(values[kept])
        # A point alone is a line of no length, which round ends make a dot.
        drawn.append('M' + ' '.join(f'{a:.1f},{b:.1f}' for a, b in zip(x, y, strict=True))
                     + ('h0' if len(kept) == 1 else ''))
    return ''.join(drawn)


def _x(times: np.ndarray, end_s: float) -> np.ndarray:
    return _LEFT + times / end_s * (_WIDTH - _LEFT - _RIGHT)


def _time_axis(end_s: float, base: float) -> list[str]:
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>']
    ticks = _ticks(0.0, end_s, 10)
    for tick in ticks:
        x = float(_x(np.array(tick), end_s))
        anchor = 'end' if x > _WIDTH - 30 else 'middle'
        unit = ' s' if tick == ticks[-1] else ''
        parts.append(f'<text x="{x:.1f}" y="{base + 17}" text-anchor="{anchor}">'
                     f'{tick:g}{unit}</text>')
    return parts


def _strips(
    times: np.ndarray, lines: Sequence[tuple[str, np.ndarray, np.ndarray]], end_s: float,
    base: float,
) -> list[str]:
    """Return strips that name the values under the pointer; a browser shows titles by itself."""
    edges = np.unique(np.linspace(0, len(times), min(_MOST_STRIPS, len(times)) + 1).astype(int))
    parts = []
    for first, behind in zip(edges[:-1], edges[1:], strict=True):
        middle = (first + behind) // 2
        left = float(_x(times[first], end_s))
        right = float(_x(times[behind], end_s)) if behind < len(times) else _WIDTH - _RIGHT
        parts.append(f'<rect class="strip" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}"'
                     f' height="{base - _TOP}"><title>{_values(times[middle], lines)}</title>'
                     '</rect>')
    return parts


def _values(time_s: float, lines: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> str:
    rows = [f'{time_s:.2f} s: ' + ', '.join(kind for kind, _, _ in lines)]
    for dim, (factor, unit) in enumerate(UNITS):
        figures = [_figure(float(values[np.argmin(np.abs(at - time_s)), dim]) * factor)
                   for _, at, values in lines if len(at)]
        rows.append(f'{DIM_NAMES[dim]}  {"  ".join(figures)} {unit}'.rstrip())
    return str(escape('\n'.join(rows)))


def _figure(value: float) -> str:
    return f'{value:.2f}' if math.isfinite(value) else '-'


def reliability_chart(parts: Sequence[Mapping], near: Sequence[Mapping]) -> Markup:
    """
    Draw the share of right tokens over confidence: exact, and behind it of `near` misses too.

    Both as of calibration.reliability. The area of a dot is the number of tokens.
    """
    frame = _Small(0.0, 1.0, 1.0)
    drawn = [frame.start('share of right tokens over confidence'), *frame.grid(_percent)]
    drawn += [f'<text x="{frame.x(tick):.1f}" y="{_SMALL_HEIGHT - _SMALL_BOTTOM + 17}"'
              f' text-anchor="middle">{_percent(tick)}</text>' for tick in (0, .2, .4, .6, .8, 1)]
    drawn.append(f'<path class="ideal" d="M{frame.x(0):.1f},{frame.y(0):.1f}'
                 f' {frame.x(1):.1f},{frame.y(1):.1f}"/>')
    for kind, series in (('near', near), ('exact', parts)):
        filled = [part for part in series if part['count']]
        most = max((part['count'] for part in filled), default=1)
        points = [(frame.x(part['confidence']), frame.y(part['right'])) for part in filled]
        drawn.append(f'<g class="{kind}"><path d="{_line(points)}"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}"'
                  f' r="{max(1.5, _LARGEST_DOT * math.sqrt(part["count"] / most)):.1f}">'
                  f'<title>{_part_text(part)}</title></circle>'
                  for (x, y), part in zip(points, filled, strict=True)]
        drawn.append('</g>')
    drawn.append(frame.name_x('confidence'))
    return Markup(''.join(drawn) + '</svg>')


def _part_text(part: Mapping) -> str:
    return (f'confidence {_percent(part["confidence"])}, right {_percent(part["right"])}:'
            f' {part["count"]:,} tokens')


def horizon_chart(
    curves: Mapping[str, Sequence[Mapping]], text: Callable[[float], str],
) -> Markup:
    """
    Draw a metric over the steps of a chunk: the policy with its interval, baselines beside it.

    curves: 'policy' and baselines -> an estimate per step. text: writes a value at the axis.
    """
    known = [entry['value'] for curve in curves.values() for entry in curve
             if entry['value'] is not None]
    known += [entry['interval_95'][1] for entry in curves['policy'] if entry['interval_95']]
    steps = len(curves['policy'])
    frame = _Small(1.0, float(max(steps, 2)), 1.05 * max(known, default=0.0) or 1.0)
    drawn = [frame.start('a metric over the steps of a chunk'), *frame.grid(text)]
    every = max(1, round(nice_step(max(steps, 2), 8)))
    drawn += [f'<text x="{frame.x(step):.1f}" y="{_SMALL_HEIGHT - _SMALL_BOTTOM + 17}"'
              f' text-anchor="middle">{step}</text>'
              for step in range(1, steps + 1) if step in (1, steps) or step % every == 0]
    drawn.append(_band(frame, curves['policy']))
    for name, curve in reversed(curves.items()):
        points = [(frame.x(step), frame.y(entry['value']))
                  for step, entry in enumerate(curve, start=1) if entry['value'] is not None]
        drawn.append(f'<path class="{name}" d="{_line(points)}"/>')
    drawn.append(frame.name_x('step of the chunk'))
    return Markup(''.join(drawn) + '</svg>')


def _band(frame: '_Small', curve: Sequence[Mapping]) -> str:
    known = [(step, entry['interval_95']) for step, entry in enumerate(curve, start=1)
             if entry['interval_95']]
    edge = [(frame.x(step), frame.y(low)) for step, (low, _) in known]
    edge += [(frame.x(step), frame.y(high)) for step, (_, high) in reversed(known)]
    return f'<path class="band" d="{_line(edge)}"/>'


class _Small:
    """The axes of a small chart: x from `first` to `last`, y from 0 to `most`."""

    def __init__(self, first: float, last: float, most: float) -> None:
        self._first, self._last, self._most = first, last, most

    def x(self, value: float) -> float:
        width = _SMALL_WIDTH - _SMALL_LEFT - _SMALL_RIGHT
        return _SMALL_LEFT + (value - self._first) / (self._last - self._first) * width

    def y(self, value: float) -> float:
        height = _SMALL_HEIGHT - _SMALL_TOP - _SMALL_BOTTOM
        return _SMALL_TOP + (1 - value / self._most) * height

    def start(self, label: str) -> str:
        return (f'<svg viewBox="0 0 {_SMALL_WIDTH} {_SMALL_HEIGHT}" class="chart small-chart"'
                f' role="img" aria-label="{label}">')

    def grid(self, text: Callable[[float], str]) -> list[str]:
        return [f'<line class="grid" x1="{_SMALL_LEFT}" x2="{_SMALL_WIDTH - _SMALL_RIGHT}"'
                f' y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/><text x="{_SMALL_LEFT - 6}"'
                f' y="{self.y(tick) + 4:.1f}" text-anchor="end">{text(tick)}</text>'
                for tick in _ticks(0.0, self._most, 5)]

    def name_x(self, name: str) -> str:
        middle = (_SMALL_LEFT + _SMALL_WIDTH - _SMALL_RIGHT) / 2
        return (f'<text x="{middle:.1f}" y="{_SMALL_HEIGHT - 6}" text-anchor="middle">'
                f'{name}</text>')


def _line(points: Sequence[tuple[float, float]]) -> str:
    return 'M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in points) if points else ''


def _percent(share: float) -> str:
    return f'{100 * share:.0f} %'
