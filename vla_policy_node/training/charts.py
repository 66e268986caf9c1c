"""Curves over the steps of a training as SVG, coloured by the style sheet; strings in and out."""

from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import math

from markupsafe import escape
from markupsafe import Markup

from vla_policy_node.statistics import nice_step
from vla_policy_node.training.history import Curve
from vla_policy_node.training.history import values

# View-box units, about 1 px on a phone.
_WIDTH, _HEIGHT = 440, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 18, 26
_PLOT_WIDTH = _WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT = _HEIGHT - _TOP - _BOTTOM

# Widths of text of 12 units: figures, and names of stages.
_FIGURE, _LETTER = 7.4, 6.6
_MOST_POINTS = 400
_MOST_STRIPS = 90
_MOST_DOTS = 40
_LOGARITHMIC_FROM = 12.0

Mark = tuple[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    One curve of a chart.

    style: its class in the style sheet; 'raw' lies behind and may be cut off by the axes. name:
    as the figures under the pointer call it; '' is left out of them. whiskers: (low, high) per
    point of the curve, in its order. dots: mark the points unless there are too many.
    """

    name: str
    style: str
    curve: Curve
    dots: bool = False
    whiskers: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    logarithmic: bool

    def y(self, value: float) -> float:
        low, high, at = (map(math.log, (self.low, self.high, max(value, self.low / 2)))
                         if self.logarithmic else (self.low, self.high, value))
        share = (at - low) / (high - low)
        return _TOP + (1 - share) * _PLOT_HEIGHT

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step = nice_step(self.high - self.low, 4)
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            return [index * step for index in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        mantissas = (1, 2, 5) if self.high / self.low < 200 else (1,)
        ticks = [mantissa * 10.0 ** decade for decade in decades for mantissa in mantissas]
        return [tick for tick in ticks if self.low <= tick <= self.high * (1 + 1e-9)]


def number_text(value: float) -> str:
    """Return a value for an axis or a table: three figures, no needless zeros."""
    return f'{value:.3g}' if 1e-3 <= abs(value) < 1e5 or value == 0 else f'{value:.0e}'


def percent_text(value: float) -> str:
    """Return a share in per cent."""
    return f'{100 * value:.3g} %'


def line_chart(
    lines: Sequence[Line], *, label: str, steps: int, marks: Sequence[Mark] = (),
    text: Callable[[float], str] = number_text, bounds: tuple[float, float] | None = None,
    logarithmic: bool = True,
) -> Markup:
    """
    Draw lines over the steps 0 to `steps`; without any value: an empty string.

    marks: (step, name) of vertical lines, as where a stage begins. text: how values are written.
    bounds: of the y axis, otherwise from the values; logarithmic where it may be and helps.
    """
    lines = [line for line in lines if values(line.curve)]
    if not lines:
        return Markup('')
    scale = _scale(lines, bounds, logarithmic)
    end = max(steps, 1)
    # A drawing within the drawing cuts off what leaves the plot.
    plot = f'{_LEFT} {_TOP - 4} {_PLOT_WIDTH + 4} {_PLOT_HEIGHT + 8}'
    x, y, width, height = plot.split()
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart lines"'
        f' aria-label="{escape(label)}">', *_grid(scale, text), *_step_axis(end),
        *_marks(marks, end),
        f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{plot}">',
        *(_drawn(line, scale, end) for line in lines), '</svg>',
        *_strips([line for line in lines if line.name], end, text), '</svg>']
    return Markup(''.join(parts))


def _scale(
    lines: Sequence[Line], bounds: tuple[float, float] | None, logarithmic: bool,
) -> _Scale:
    if bounds is not None:
        return _Scale(*bounds, False)
    found = sorted(value for line in lines if line.style != 'raw' for value in values(line.curve))
    # A few wild values of single batches must not flatten everything else.
    raw = sorted(value for line in lines if line.style == 'raw' for value in values(line.curve))
    found += raw[len(raw) // 50:len(raw) - len(raw) // 50]
    found += [edge for line in lines for whisker in line.whiskers for edge in whisker]
    low, high = min(found), max(found)
    if logarithmic and low > 0 and high / low > _LOGARITHMIC_FROM:
        return _Scale(low * 0.9, high * 1.1, True)
    if low > 0 and low < 0.5 * high:
        low = 0.0
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return _Scale(low if low == 0 else low - margin, high + margin, False)


def _x(step: float, end: int) -> float:
    return _LEFT + step / end * _PLOT_WIDTH


def _grid(scale: _Scale, text: Callable[[float], str]) -> Iterator[str]:
    for tick in scale.ticks():
        y = scale.y(tick)
        yield (f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}"'
               f' y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 4:.1f}"'
               f' text-anchor="end">{text(tick)}</text>')


def _step_axis(end: int) -> Iterator[str]:
    base = _HEIGHT - _BOTTOM
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    step = max(1, round(nice_step(end, 6)))
    for tick in range(0, end + 1, step):
        name = f'{tick:,}' if tick else 'step 0'
        x = min(_x(tick, end), _WIDTH - 0.5 * _FIGURE * len(name))
        yield f'<text x="{x:.1f}" y="{base + 17}" text-anchor="middle">{name}</text>'


def _marks(marks: Sequence[Mark], end: int) -> Iterator[str]:
    free_from = 0.0
    for step, name in marks:
        x = _x(step, end)
        yield (f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}"'
               f' y2="{_HEIGHT - _BOTTOM}"/>')
        width = _LETTER * len(name)
        # Names that would cover each other are left out; the table of stages has all.
        if x >= free_from and x + width < _WIDTH:
            yield f'<text x="{x:.1f}" y="{_TOP - 6}">{escape(name)}</text>'
            free_from = x + width + 6


def _drawn(line: Line, scale: _Scale, end: int) -> str:
    parts = [f'<g class="{line.style}">']
    for points in line.curve:
        every = -(-len(points) // _MOST_POINTS)
        kept = [*points[:-1:every], points[-1]]
        path = ' '.join(f'{_x(step, end):.1f},{scale.y(value):.1f}' for step, value in kept)
        parts.append(f'<polyline points="{path}"/>')
    flat = [point for points in line.curve for point in points]
    if (line.dots and len(flat) <= _MOST_DOTS) or len(flat) == 1:
        parts += [f'<circle cx="{_x(step, end):.1f}" cy="{scale.y(value):.1f}" r="2.6"/>'
                  for step, value in flat]
    for (step, _), (low, high) in zip(flat, line.whiskers, strict=False):
        x = _x(step, end)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(low):.1f}"'
                     f' y2="{scale.y(high):.1f}"/>')
    return ''.join(parts) + '</g>'


def _strips(lines: Sequence[Line], end: int, text: Callable[[float], str]) -> Iterator[str]:
    """Yield strips that name the values under the pointer; a browser shows titles by itself."""
    curves = {line.name: sorted(point for points in line.curve for point in points)
              for line in lines}
    steps = sorted({step for points in curves.values() for step, _ in points})
    steps = steps[::-(-len(steps) // _MOST_STRIPS)] if steps else []
    for index, step in enumerate(steps):
        left = _x((steps[index - 1] + step) / 2, end) if index else _LEFT
        right = _x((step + steps[index + 1]) / 2, end) if step != steps[-1] else _WIDTH - _RIGHT
        figures = [f'{name} {text(_nearest(points, step))}' for name, points in curves.items()]
        title = '\n'.join([f'step {step:,}', *figures])
        yield (f'<rect class="strip" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}"'
               f' height="{_PLOT_HEIGHT}"><title>{escape(title)}</title></rect>')


def _nearest(points: Sequence[tuple[int, float]], step: int) -> float:
    place = bisect_left(points, (step, -math.inf))
    beside = points[max(0, place - 1):place + 1]
    return min(beside, key=lambda point: abs(point[0] - step))[1]
