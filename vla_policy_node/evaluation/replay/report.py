"""One self-contained HTML page about a replay: no script, no external resource."""

from collections.abc import Mapping
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment
from jinja2 import StrictUndefined
import numpy as np

from vla_policy_node.evaluation.charts import histogram
from vla_policy_node.evaluation.replay import charts
from vla_policy_node.evaluation.replay import film
from vla_policy_node.evaluation.replay import report_rows
from vla_policy_node.evaluation.replay.events import OPEN_FROM
from vla_policy_node.evaluation.replay.film import WorstFrame
from vla_policy_node.evaluation.replay.metrics import GRIPPER
from vla_policy_node.evaluation.replay.metrics import within_name
from vla_policy_node.evaluation.replay.report_live import live_section
from vla_policy_node.evaluation.replay.report_rows import Measure
from vla_policy_node.evaluation.replay.results import Replayed

# What the page shows: the plots of hundreds of episodes would make it many megabytes.
EPISODES_WITH_PLOTS = 16
_OPEN_EPISODES = 2
# Of meta: the names of the episodes, and what the reader must know first.
_SHOWN_ELSEWHERE = frozenset({'episodes', 'warnings', 'against_live'})

_PERCENT = Measure(label='', path=(), factor=100, digits=1)
_PLAIN = Measure(label='', path=(), digits=2)
_SCALED = Measure(label='', path=(), digits=3)


def render(
    summary: Mapping, replayed: Replayed, worst: Sequence[WorstFrame], *,
    against: Replayed | None = None,
) -> str:
    """
    Return the page.

    summary: as of summary.summarise. replayed: what it was made of. worst: the film strip, in
    its order. against: the second policy, drawn into the plots of the episodes.
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters['number'] = report_rows.number
    return environment.from_string(_resource('report.html.j2')).render(
        style=''.join(_resource('report.css', package) for package in (
            'vla_policy_node', 'vla_policy_node.evaluation', __package__)),
        summary=summary,
        warnings=summary['meta'].get('warnings') or [],
        headline=_headline(summary),
        facts=_facts(summary),
        rivals=report_rows.rivals_table(summary),
        dimensions=report_rows.dimensions_table(summary),
        horizon=_horizon(summary),
        reliability=_reliability(summary),
        latency=_latency(summary, replayed),
        episodes=_episodes(summary, replayed, against),
        episodes_total=len(summary['episodes']),
        film=_film(worst),
        differences=report_rows.differences_table(summary) if summary['against'] else [],
        agreement=_agreement(summary),
        left_out=report_rows.left_out(summary),
        live=live_section(summary),
        configuration=report_rows.configuration(
            {key: value for key, value in summary['meta'].items() if key not in _SHOWN_ELSEWHERE}))


def _resource(name: str, package: str = __package__) -> str:
    return resources.files(package).joinpath(name).read_text(encoding='utf-8')


def _headline(summary: Mapping) -> dict | None:
    """Return the first number: 'figure', 'what', 'range' and the same of a baseline, or None."""
    metrics = summary['metrics']
    for name, measure, what in (
            ('token_accuracy', _PERCENT, 'of the action’s tokens are the recorded ones'),
            ('nrmse', _SCALED, 'of the action’s range is the RMS error')):
        estimate = metrics['policy'][name]['overall']
        if estimate['value'] is not None:
            unit = ' %' if measure is _PERCENT else ''
            beside = metrics['previous_action'][name]['overall']['value']
            return {'figure': measure.text(estimate['value']) + unit, 'what': what,
                    'range': _with_unit(measure.range(estimate['interval_95']), unit),
                    'previous': _with_unit(measure.text(beside), unit)
                    if beside is not None else ''}
    return None


def _with_unit(text: str, unit: str) -> str:
    return text + unit if text else ''


def _facts(summary: Mapping) -> list[tuple[str, str, str]]:
    """Return (name, figure, interval) of what stands below the headline."""
    policy = summary['metrics']['policy']
    found = [(label, estimate, measure, unit) for label, estimate, measure, unit in (
        ('normalised RMSE', policy['nrmse']['overall'], _SCALED, ''),
        ('translation, mean error', policy['l1']['translation'], _millimetres(), ' mm'),
        ('rotation, mean error', policy['l1']['rotation'], _degrees(), '°'),
        ('direction of translation', policy['direction_cosine']['translation'], _PLAIN, ''),
        ('gripper closed, F1', policy['gripper_f1']['closed'], _PLAIN, ''),
        ('calibration error', summary['calibration']['error']['overall'], _SCALED, ''))
        if estimate['value'] is not None]
    facts = [(label, measure.text(estimate['value']) + unit,
              measure.range(estimate['interval_95'])) for label, estimate, measure, unit in found]
    latency = summary['latency_ms']
    if latency['count']:
        facts.append(('latency, median', f'{report_rows.number(latency["p50"])} ms',
                      f'p99 {report_rows.number(latency["p99"])} ms'))
        # Live, the node decides how often the policy is asked.
        live = summary['live']
        facts.append(('answers per second', report_rows.number(live['rate_hz']), '') if live else
                     ('inferences per second', report_rows.number(summary['rate_hz']), ''))
    return facts


def _millimetres() -> Measure:
    return Measure(label='', path=(), factor=1e3, digits=2)


def _degrees() -> Measure:
    return Measure(label='', path=(), factor=charts.UNITS[3][0], digits=2)


def _horizon(summary: Mapping) -> dict | None:
    if summary['horizon'] < 2 or not summary['evaluable']:
        return None
    curves = summary['horizon_curve']
    has_tokens = any(entry['value'] is not None for entry in curves['token_accuracy']['policy'])
    return {
        'nrmse': charts.horizon_chart(curves['nrmse'], lambda value: f'{value:g}'),
        'accuracy': charts.horizon_chart(
            curves['token_accuracy'], lambda value: f'{100 * value:g} %')
        if has_tokens else '',
        'keys': [(key, entry['name']) for key, entry in summary['metrics'].items()]}


def _reliability(summary: Mapping) -> dict | None:
    calibration = summary['calibration']
    error = calibration['error']['overall']
    if error['value'] is None:
        return None
    nearly = summary['settings']['within_bins']
    near = calibration[f'reliability_{within_name(nearly[0])}'] if nearly else []
    return {'chart': charts.reliability_chart(calibration['reliability'], near),
            'near': nearly[0] if nearly else None,
            'error': _SCALED.text(error['value']), 'range': _SCALED.range(error['interval_95']),
            'count': error['count']}


def _latency(summary: Mapping, replayed: Replayed) -> dict | None:
    latency = summary['latency_ms']
    if not latency['count']:
        return None
    known = replayed.latency_ms[np.isfinite(replayed.latency_ms)]
    marks = [(name, latency[name]) for name in ('p50', 'p95', 'p99')]
    parts = [(name, timing['p50']) for name, timing in summary['timing_ms'].items()
             if name != 'total' and timing['p50'] is not None]
    whole = sum(part for _, part in parts) or 1.0
    return {'chart': histogram(known.tolist(), marks, 'ms'), 'count': latency['count'],
            'parts': [{'name': name, 'ms': part, 'share': 100 * part / whole}
                      for name, part in parts]}


def _episodes(
    summary: Mapping, replayed: Replayed, against: Replayed | None,
) -> list[dict]:
    """Return the episodes with plots, in their order; of many those with the largest error."""
    by_error = sorted(summary['episodes'], key=lambda entry: -(entry['nrmse'] or 0.0))
    named = {entry['number']: entry for entry in summary['meta'].get('episodes') or []}
    chosen = sorted(by_error[:EPISODES_WITH_PLOTS], key=lambda entry: entry['number'])
    return [{
        **entry,
        'accuracy': _PERCENT.text(entry['token_accuracy']),
        'error': _SCALED.text(entry['nrmse']),
        'instruction': named.get(entry['number'], {}).get('instruction') or '',
        'bag': named.get(entry['number'], {}).get('bag') or '',
        'open': place < _OPEN_EPISODES,
        'chart': charts.episode_chart(replayed, entry['number'], against),
    } for place, entry in enumerate(chosen)]


def _film(worst: Sequence[WorstFrame]) -> list[dict]:
    return [_frame(frame, reach)
            for frame, reach in zip(worst, film.reaches_m(worst), strict=True)]


def _frame(frame: WorstFrame, reach: float) -> dict[str, object]:
    recorded, predicted = film.motion(frame)
    return {'uri': film.data_uri(frame.picture), 'overlay': film.overlay(frame, reach),
            'caption': frame.caption,
            'gripper': _gripper(recorded, predicted),
            'rows': [('recorded', report_rows.motion_row(recorded.tolist())),
                     ('predicted', report_rows.motion_row(predicted.tolist()))]}


def _gripper(recorded: np.ndarray, predicted: np.ndarray) -> str:
    """Return in words where the gripper of the last step is on the wrong side, else ''."""
    if not len(recorded):
        return ''
    wanted, found = (int(actions[-1, GRIPPER] >= OPEN_FROM) for actions in (recorded, predicted))
    sides = ('closed', 'open')
    return '' if wanted == found else f'{sides[found]} instead of {sides[wanted]}'


def _agreement(summary: Mapping) -> list[tuple[str, str, str]]:
    """Return (what, figure, interval) of how near the two policies are to each other."""
    compared = summary['against']
    if not compared:
        return []
    found = []
    if compared['token_agreement']:
        found.append(('equal tokens', compared['token_agreement']['overall'], _PERCENT, ' %'))
    found.append(('normalised RMS distance', compared['nrmse_between']['overall'], _SCALED, ''))
    return [(what, _with_unit(measure.text(entry['value']), unit if entry['value'] is not None
                              else ''), measure.range(entry['interval_95']))
            for what, entry, measure, unit in found]


