"""Which curves the report of a training shows; drawn by `charts`, read by `history`."""

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from vla_policy_node.statistics import wilson_interval
from vla_policy_node.training.charts import Line
from vla_policy_node.training.charts import line_chart
from vla_policy_node.training.charts import Mark
from vla_policy_node.training.charts import percent_text
from vla_policy_node.training.history import Curve
from vla_policy_node.training.history import History
from vla_policy_node.training.history import smoothed
from vla_policy_node.training.history import values

_METRICS = {
    'pointing_px': 'pointing error, median, px',
    'pointing_mean_px': 'pointing error, mean, px',
    'action_error': 'action error, normalised',
}
_WHOLE = (0.0, 1.0)
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and what stands above it."""

    title: str
    drawing: Markup


def metric_title(name: str) -> str:
    """Return a held-out figure's name for a reader, with its unit where it is known."""
    return _METRICS.get(name, name.replace('_', ' '))


def losses(history: History) -> list[Chart]:
    """Return the loss of every source, training and validation in one chart."""
    names = dict.fromkeys(
        [*history.names('train', 'loss'), *history.names('validation', 'loss')])
    charts = []
    for name in sorted(names, key=lambda name: name != 'all'):
        train = _trained(history.curve('train', 'loss', name))
        held = Line(name='validation', style='validation', dots=True,
                    curve=history.curve('validation', 'loss', name))
        title = 'all sources' if name == 'all' else name
        charts.append(Chart(title, line_chart(
            [*train, held], label=f'loss, {title}', steps=history.steps, marks=_marks(history))))
    return _with_values(charts)


def held_out(history: History) -> list[Chart]:
    """Return the figures measured on held-out frames: pointing, actions."""
    return _with_values(
        Chart(metric_title(name), line_chart(
            [Line(name=name.replace('_', ' '), style='validation', dots=True,
                  curve=history.curve(None, 'held_out', name))],
            label=metric_title(name), steps=history.steps, marks=_marks(history)))
        for name in history.names(None, 'held_out'))


def pace(history: History) -> list[Chart]:
    """Return learning rate, speed and time lost waiting."""
    waiting = history.curve('train', 'waiting_share')
    most = max([_LEAST_SHARE, *values(waiting)])
    shapes = {'steps': history.steps, 'marks': _marks(history), 'logarithmic': False}
    return _with_values([
        Chart('learning rate', line_chart(
            [Line(name='learning rate', style='train', curve=history.curve('train', 'lr'))],
            label='learning rate', **shapes)),
        Chart('samples per second', line_chart(
            _trained(history.curve('train', 'samples_per_s')),
            label='samples per second', **shapes)),
        Chart('share of time waiting for data', line_chart(
            _trained(waiting), label='share of time waiting for data', text=percent_text,
            bounds=(0.0, 1.08 * most), **shapes)),
    ])


def accuracy(history: History) -> list[Chart]:
    """Return what validation measures besides the loss, over all steps."""
    def line(name: str, style: str, *path: str) -> Line:
        return Line(name=name, style=style, dots=style != 'floor',
                    curve=history.curve('validation', *path))

    shapes = {'steps': history.steps, 'marks': _marks(history), 'logarithmic': False}
    share = {**shapes, 'text': percent_text, 'bounds': _WHOLE}
    return _with_values([
        Chart('action tokens that are right', line_chart(
            [line('model', 'validation', 'token_accuracy', 'all'),
             line('most frequent token', 'floor', 'majority_accuracy', 'all')],
            label='token accuracy', **share)),
        Chart('action error, mean absolute, normalised', line_chart(
            [line('error', 'validation', 'l1_normalised', 'all')],
            label='mean absolute error', **shapes)),
        Chart('answers that are right, word for word', line_chart(
            [line('answers', 'validation', 'answers', 'exact_match')],
            label='exact answers', **share)),
    ])


def closed_loop(history: History) -> list[Chart]:
    """Return success per verb over the run with 95 % intervals, where measured more than once."""
    drives = history.closed_loops()
    if len(drives) < 2:
        return []
    charts = []
    for verb in dict.fromkeys(verb for _, record in drives for verb in record['per_verb']):
        found = [(step, *record['per_verb'][verb]) for step, record in drives
                 if record['per_verb'].get(verb, (0, 0))[1]]
        curve: Curve = [[(step, good / count) for step, good, count in found]]
        whiskers = [wilson_interval(good, count) for _, good, count in found]
        charts.append(Chart(verb, line_chart(
            [Line(name='success', style='validation', dots=True, curve=curve, whiskers=whiskers)],
            label=f'success, {verb}', steps=history.steps, marks=_marks(history),
            text=percent_text, bounds=_WHOLE)))
    return _with_values(charts)


def _trained(curve: Curve) -> list[Line]:
    """Return a noisy curve faint and its running mean in front; alone where it is short."""
    mean = smoothed(curve)
    front = Line(name='train', style='train', curve=mean)
    return [front] if mean == curve else [Line(name='', style='raw', curve=curve), front]


def _marks(history: History) -> list[Mark]:
    if len(history.stages) < 2:
        return []
    return [(stage.first - 1, stage.name) for stage in history.stages]


def _with_values(charts: Iterator[Chart] | list[Chart]) -> list[Chart]:
    return [chart for chart in charts if chart.drawing]
