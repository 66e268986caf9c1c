"""The rows of the report's tables: numbers of summary.json as people read them, as text."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math

from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.evaluation.replay.charts import UNITS
from vla_policy_node.evaluation.replay.metrics import within_name

_HIGHER, _LOWER, _NEITHER = 1, -1, 0
_MM, _DEGREES = 1e3, 180 / math.pi
NOTHING = '–'
# The end of a name, as a unit.
_UNITS_OF_NAMES = {'_per_s': '1/s', '_ms': 'ms', '_s': 's', '_hz': 'Hz'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """
    One row: where it is in the metrics, and how it is written.

    path: keys of an entry of summary['metrics']. factor: to the unit of the text. better: 1 where
    higher is better, -1 where lower is, 0 where neither.
    """

    label: str
    path: tuple[str, ...]
    factor: float = 1.0
    digits: int = 3
    better: int = _NEITHER

    def text(self, value: float | None, sign: bool = False) -> str:
        """Return a value of this measure without its unit; a dash for None."""
        if value is None:
            return NOTHING
        number = f'{value * self.factor:{"+" if sign else ""}.{self.digits}f}'
        # A rounded zero has no sign.
        return number.lstrip('+-') if float(number) == 0 else number.replace('-', '−')

    def range(self, bounds: Sequence[float] | None, sign: bool = False) -> str:
        """Return 'low to high', '' where there is no interval."""
        if bounds is None:
            return ''
        return f'{self.text(bounds[0], sign)} to {self.text(bounds[1], sign)}'


def measures(summary: Mapping) -> list[Measure]:
    """Return the rows of the tables over all dimensions."""
    return [
        Measure(label='tokens right [%]', path=('token_accuracy', 'overall'), factor=100,
                digits=1, better=_HIGHER),
        *(Measure(label=f'tokens within {n} {"bin" if n == 1 else "bins"} [%]', factor=100,
                  path=(within_name(n), 'overall'), digits=1, better=_HIGHER)
          for n in summary['settings']['within_bins']),
        Measure(label='normalised RMSE', path=('nrmse', 'overall'), better=_LOWER),
        Measure(label='translation, mean error [mm]', path=('l1', 'translation'), factor=_MM,
                digits=2, better=_LOWER),
        Measure(label='translation, RMSE [mm]', path=('rmse', 'translation'), factor=_MM,
                digits=2, better=_LOWER),
        Measure(label='rotation, mean error [°]', path=('l1', 'rotation'), factor=_DEGREES,
                digits=2, better=_LOWER),
        Measure(label='rotation, RMSE [°]', path=('rmse', 'rotation'), factor=_DEGREES,
                digits=2, better=_LOWER),
        Measure(label='direction of translation, cosine',
                path=('direction_cosine', 'translation'), better=_HIGHER),
        Measure(label='direction of rotation, cosine', path=('direction_cosine', 'rotation'),
                better=_HIGHER),
        Measure(label='gripper closed, F1', path=('gripper_f1', 'closed'), better=_HIGHER),
        Measure(label='gripper open, F1', path=('gripper_f1', 'open'), better=_HIGHER),
    ]


def timing_measures() -> list[Measure]:
    """Return the rows about the moments at which the gripper opens and closes."""
    return [
        Measure(label='gripper events, mean delay [s]', path=('gripper_events', 'signed_s'),
                digits=2),
        Measure(label='gripper events, mean absolute delay [s]', digits=2, better=_LOWER,
                path=('gripper_events', 'absolute_s')),
    ]


def rivals_table(summary: Mapping) -> dict:
    """Return the policy beside the baselines: 'names', and 'rows' of label and cells."""
    metrics = summary['metrics']
    rows = [_rivals_row(measure, metrics) for measure in
            (*measures(summary), *timing_measures())]
    plain = [
        (Measure(label='gripper events, median delay [s]', path=(), digits=2), 'median_signed_s'),
        (Measure(label='gripper events, median absolute delay [s]', path=(), digits=2),
         'median_absolute_s'),
        *((Measure(label=f'gripper events, {key}', path=(), digits=0), key)
          for key in ('recorded', 'missed', 'extra'))]
    rows += [{'label': measure.label, 'cells': [
        {'text': measure.text(entry['gripper_events'][key], key == 'median_signed_s'),
         'range': '', 'best': False} for entry in metrics.values()]} for measure, key in plain]
    known = [row for row in rows if any(cell['text'] != NOTHING for cell in row['cells'])]
    return {'names': [entry['name'] for entry in metrics.values()], 'rows': known}


def _rivals_row(measure: Measure, metrics: Mapping) -> dict:
    found = [_at(entry, measure.path) for entry in metrics.values()]
    values = [entry['value'] for entry in found]
    best = _best(values, measure.better)
    return {'label': measure.label, 'cells': [
        {'text': measure.text(entry['value'], _signed(measure)),
         'range': measure.range(entry['interval_95'], _signed(measure)),
         'best': best is not None and entry['value'] == best} for entry in found]}


def _signed(measure: Measure) -> bool:
    return measure.path[-1] == 'signed_s'


def _best(values: Sequence[float | None], better: int) -> float | None:
    known = [value for value in values if value is not None]
    # Where all are alike none is the best.
    if len(set(known)) < 2 or better == _NEITHER:
        return None
    return max(known) if better == _HIGHER else min(known)


def _at(entry: Mapping, path: Sequence[str]) -> Mapping:
    for key in path:
        entry = entry[key]
    return entry


def dimensions_table(summary: Mapping) -> dict:
    """Return the policy per dimension: 'heads', and 'rows' of name and cells."""
    policy = summary['metrics']['policy']
    others = {key: entry for key, entry in summary['metrics'].items() if key != 'policy'}
    nearly = summary['settings']['within_bins']
    heads = ['tokens right [%]', *(f'within {n} [%]' for n in nearly), 'mean error', 'RMSE',
             'NRMSE', *(f'NRMSE, {entry["name"]}' for entry in others.values())]
    rows = []
    for name, (factor, unit) in zip(DIM_NAMES, UNITS, strict=True):
        share = Measure(label='', path=(), factor=100, digits=1)
        length = Measure(label='', path=(), factor=factor, digits=2)
        plain = Measure(label='', path=())
        cells = [_cell(share, policy['token_accuracy'][name]),
                 *(_cell(share, policy[within_name(n)][name]) for n in nearly),
                 *(_cell(length, policy[key][name], unit) for key in ('l1', 'rmse')),
                 _cell(plain, policy['nrmse'][name]),
                 *(_cell(plain, entry['nrmse'][name]) for entry in others.values())]
        rows.append({'name': name, 'cells': cells})
    return {'heads': heads, 'rows': rows}


def _cell(measure: Measure, estimate: Mapping, unit: str = '') -> dict:
    text = measure.text(estimate['value'])
    unit = unit if unit in ('', '°') else f' {unit}'
    return {'text': text if text == NOTHING else text + unit,
            'range': measure.range(estimate['interval_95']), 'best': False}


def differences_table(summary: Mapping) -> list[dict]:
    """Return rows of label, first, against, difference, range and who is better where clear."""
    compared = summary['against']['differences']
    extra = [
        Measure(label='calibration error', path=('calibration_error', 'overall'), better=_LOWER),
        Measure(label='latency, mean [ms]', path=('latency_ms', 'mean'), digits=1,
                better=_LOWER)]
    timing = [Measure(label=measure.label, path=('gripper_timing', measure.path[-1]), digits=2,
                      better=measure.better) for measure in timing_measures()]
    rows = [_difference(measure, _at(compared, measure.path))
            for measure in (*measures(summary), *timing, *extra)]
    return [row for row in rows if {row['first'], row['against']} != {NOTHING}]


def _difference(measure: Measure, entry: Mapping) -> dict:
    bounds = entry['interval_95']
    difference = measure.text(entry['difference'], True)
    # What is too small to be written down is not worth a word.
    clear = bounds is not None and (bounds[0] > 0 or bounds[1] < 0) and (
        difference != measure.text(0.0))
    better = measure.better * (entry['difference'] or 0.0)
    return {'label': measure.label, 'first': measure.text(entry['first'], _signed(measure)),
            'against': measure.text(entry['against'], _signed(measure)),
            'difference': difference,
            'range': measure.range(bounds, True),
            'verdict': '' if not clear or not better else 'better' if better > 0 else 'worse'}


def motion_row(actions: Sequence[Sequence[float]]) -> list[str]:
    """Return x, y, z [mm], rx, ry, rz [°] summed over steps (M, 7), and the last gripper."""
    if not len(actions):
        return [NOTHING] * len(DIM_NAMES)
    sums = [sum(step[dim] for step in actions) for dim in range(6)] + [actions[-1][6]]
    texts = [f'{value * factor:.{0 if abs(value * factor) >= 100 else 2 if dim == 6 else 1}f}'
             for dim, (value, (factor, _)) in enumerate(zip(sums, UNITS, strict=True))]
    # A rounded zero has no sign.
    return [text.lstrip('-') if float(text) == 0 else text.replace('-', '−') for text in texts]


def left_out(summary: Mapping) -> list[tuple[str, int]]:
    """Return (reason, count) of what was not evaluated."""
    frames = summary['frames']
    rows = [(reason, count) for reason, count in summary['skipped'].items()]
    rows.append(('frames for which the policy gave no action', frames['decoding_failed']))
    rows.append(('frames without a usable recorded action', frames['recording_unusable']))
    return [(reason, count) for reason, count in rows if count]


def _named(name: str) -> str:
    for end, unit in _UNITS_OF_NAMES.items():
        if name.endswith(end):
            return f"{name.removesuffix(end).replace('_', ' ')} [{unit}]"
    return name.replace('_', ' ')


def number(value: float | None) -> str:
    """Return a number with about three figures; a dash for None."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f'{value:,}'
    text = f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'
    return text.replace('-', '−')


def configuration(meta: Mapping) -> list[tuple[str, str]]:
    """Return (name, text) rows of meta, nested mappings as 'outer, inner'."""
    rows = []
    for key, value in meta.items():
        name = _named(key)
        if isinstance(value, Mapping):
            rows += [(f'{name}, {inner}', text) for inner, text in configuration(value)]
        elif isinstance(value, list | tuple):
            rows += [(name, ', '.join(map(str, value)))] if value else []
        elif value is not None and value != '':
            rows.append((name, str(value)))
    return rows
