"""
One self-contained HTML page about a training: no script, no external resource.

Made from the log alone, at any time while or after a run:
    python -m vla_policy_node.training.report out/training/tabletop
"""

import argparse
import base64
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import resources
import io
import json
from pathlib import Path
import sys
from typing import Any

from jinja2 import Environment
from jinja2 import StrictUndefined
from PIL import Image
from PIL import UnidentifiedImageError
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import model_validator
from pydantic import ValidationError

from vla_policy_node.statistics import percent_text
from vla_policy_node.statistics import wilson_interval
from vla_policy_node.training import report_charts
from vla_policy_node.training.charts import number_text
from vla_policy_node.training.display import duration
from vla_policy_node.training.history import CLOSED_LOOP
from vla_policy_node.training.history import History
from vla_policy_node.training.history import typical
from vla_policy_node.training.history import values
from vla_policy_node.training.journal import LOG_NAME
from vla_policy_node.training.journal import read_journal
from vla_policy_node.training.journal import Record
from vla_policy_node.training.pictures import same_answer

REPORT_NAME = 'report.html'
PROVENANCE_NAME = 'provenance.json'
MEASUREMENTS_NAME = 'measurements.json'

_JPEG_QUALITY = 88
# A run that saves its state often would fill the page with that.
_DULL_EVENTS = frozenset({'checkpoint'})
# Of provenance.json, shown elsewhere on the page or too long for it.
_NOT_CONFIGURATION = frozenset({'name', 'base', 'versions', 'measured', 'minutes'})

# What the page begins with where nothing better was measured: (kind, path, what it is).
_SIMPLE_HEADLINES = (
    (None, ('held_out', 'pointing_px'), 'px median error of pointing on held-out pictures'),
    ('validation', ('loss', 'all'), 'nats per token on held-out samples'),
    ('train', ('loss', 'all'), 'nats per token in training'),
)


class ReportError(ValueError):
    """A report cannot be made; one line names the file, what was found and the mend."""


class MeasurementTable(BaseModel):
    """A table of measurements.json; note: what a reader must know to read it."""

    model_config = ConfigDict(extra='forbid')

    title: str
    columns: list[str]
    rows: list[list[str | int | float | None]]
    note: str = ''

    @model_validator(mode='after')
    def _check_rows(self) -> 'MeasurementTable':
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f'expected {len(self.columns)} cells in every row of'
                                 f' {self.title!r}, found {len(row)} in {row}')
        return self


class Measurements(BaseModel):
    """What was measured besides the log, for the page only."""

    model_config = ConfigDict(extra='forbid')

    title: str
    tables: list[MeasurementTable]


def write_report(folder: Path) -> Path:
    """
    Write `folder`/report.html from log.jsonl, and from provenance.json and measurements.json
    where they are; returns its path.

    Raises ReportError when there is no log or another file of these cannot be read.
    """
    page = render(_records(folder), folder, _provenance(folder), _measurements(folder))
    path = folder / REPORT_NAME
    partial = path.with_suffix('.partial')
    partial.write_text(page, encoding='utf-8')
    partial.replace(path)
    return path


def render(
    records: Sequence[Record], folder: Path, provenance: Mapping[str, Any],
    measurements: Measurements | None,
) -> str:
    """Return the page. folder: where the pictures of the records lie."""
    history = History(records)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters['figure'] = _figure
    environment.filters['percent'] = lambda share: f'{100 * share:.0f}'
    template = environment.from_string(_resource('report.html.j2'))
    drives = [_drive(step, record) for step, record in history.closed_loops()]
    samples = _samples(history, folder)
    return template.render(
        style=_resource('report.css', 'vla_policy_node') + _resource('report.css'),
        name=provenance.get('name') or folder.resolve().name,
        base=provenance.get('base'),
        state=history.state(),
        headline=_headline(history, drives),
        facts=_facts(history),
        mixture=history.last(lambda record: record.get('kind') == 'mixture'),
        stages=_stage_table(history),
        losses=report_charts.losses(history),
        validated=bool(history.names('validation', 'loss')),
        held_out=report_charts.held_out(history),
        pace=report_charts.pace(history),
        accuracy=_accuracy(history),
        accuracy_charts=report_charts.accuracy(history),
        drives=drives,
        verbs=list(dict.fromkeys(verb for drive in drives for verb in drive['verbs'])),
        drive_charts=report_charts.closed_loop(history),
        answers=[sample for sample in samples if 'question' in sample],
        actions=[sample for sample in samples if 'question' not in sample],
        samples_step=_samples_step(history),
        events=[(step, record) for step, record in history.records('event')
                if record['name'] not in _DULL_EVENTS],
        measurements=measurements,
        configuration=_configuration(provenance))


def _records(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_journal(folder)
    except FileNotFoundError as error:
        raise ReportError(f'expected the log of a training at {folder / LOG_NAME}, found no file;'
                          ' give the folder of a run') from error


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE_NAME
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ReportError(f'expected JSON in {path}, found {error}; remove the file') from error


def _measurements(folder: Path) -> Measurements | None:
    path = folder / MEASUREMENTS_NAME
    if not path.exists():
        return None
    try:
        return Measurements.model_validate_json(path.read_text(encoding='utf-8'))
    except ValidationError as error:
        first = error.errors()[0]
        place = '.'.join(map(str, first['loc'])) or 'the whole'
        raise ReportError(f'expected title and tables (title, columns, rows, note) in {path},'
                          f" found at {place}: {first['msg']}; correct the file") from error


def _resource(name: str, package: str = __package__) -> str:
    return resources.files(package).joinpath(name).read_text(encoding='utf-8')


def _figure(value: object) -> str:
    """Return a cell of a table: numbers short, nothing for None."""
    if value is None:
        return ''
    if isinstance(value, float):
        return number_text(value)
    return f'{value:,}' if isinstance(value, int) else str(value)


def _headline(history: History, drives: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return (figure, what it is) of the best the log knows about what was reached."""
    if drives:
        total = drives[-1]['all']
        low, high = total['interval_95']
        where = '' if drives[-1]['name'] == CLOSED_LOOP else f", {drives[-1]['name']}"
        return (f"{total['success']} of {total['episodes']}",
                f"episodes succeeded in the closed loop{where}, {percent_text(total['rate'])} %"
                f' (95 % interval {100 * low:.0f}–{100 * high:.0f} %)')
    accuracy = values(history.curve('validation', 'token_accuracy', 'all'))
    if accuracy:
        majority = values(history.curve('validation', 'majority_accuracy', 'all'))
        beside = f'; always the most frequent one: {100 * majority[-1]:.0f} %' if majority else ''
        return (f'{100 * accuracy[-1]:.0f} %',
                f'of the action’s tokens are right on held-out samples{beside}')
    for kind, path, text in _SIMPLE_HEADLINES:
        found = values(history.curve(kind, *path))
        if found:
            return number_text(found[-1]), text
    return None


def _facts(history: History) -> list[tuple[str, str]]:
    facts = [('steps', f'{history.steps:,}')]
    minutes = history.minutes()
    if minutes is not None:
        facts.append(('time', duration(minutes)))
    rate = typical(history.curve('train', 'samples_per_s'))
    if rate is not None:
        facts.append(('samples per second, median', number_text(rate)))
    waiting = typical(history.curve('train', 'waiting_share'))
    if waiting is not None:
        facts.append(('waiting for data, median', f'{100 * waiting:.0f} %'))
    skipped = values(history.curve('train', 'skipped'))
    if skipped:
        facts.append(('records skipped', f'{skipped[-1]:,.0f}'))
    held = [point for points in history.curve('validation', 'loss', 'all') for point in points]
    if held:
        step, loss = min(held, key=lambda point: point[1])
        facts.append((f'lowest validation loss, at step {step:,}', number_text(loss)))
    return facts


def _stage_table(history: History) -> dict[str, Any] | None:
    """Return what each stage ended with, where there are several."""
    if len(history.stages) < 2:
        return None
    columns = [*(('loss', name) for name in history.names('train', 'loss')),
               *(('held_out', name) for name in history.names(None, 'held_out'))]
    rows = []
    for stage in history.stages:
        # The end of a stage is at the start of the next: the name tells them apart.
        mine = [record for _, record in history.placed
                if record.get('stage', '') == stage.name and 'step' in record]
        ends = [next((record[key][name] for record in reversed(mine)
                      if name in (record.get(key) or {})), None) for key, name in columns]
        done = stage.last - stage.first + 1
        steps = f'{done:,}' if done == stage.planned else f'{done:,} of {stage.planned:,}'
        rows.append((stage.name, steps, mine[-1].get('minutes'), ends))
    names = [f'loss, {name}' if key == 'loss' else report_charts.metric_title(name)
             for key, name in columns]
    return {'columns': names, 'rows': rows}


def _accuracy(history: History) -> dict[str, Any] | None:
    """Return the last validation's accuracy per dimension beside the majority."""
    found = history.last(lambda record: record.get('token_accuracy'))
    if found is None:
        return None
    step, record = found
    majority = record.get('majority_accuracy') or {}
    error = record.get('l1_normalised') or {}
    rows = [{'name': name, 'accuracy': value, 'majority': majority.get(name),
             'l1': error.get(name)}
            for name, value in record['token_accuracy'].items() if value is not None]
    return {'step': step, 'rows': rows, 'answers': record.get('answers')}


def _drive(step: int, record: Record) -> dict[str, Any]:
    """Return a measurement by driving, with intervals."""
    verbs = {verb: _entry(good, count) for verb, (good, count)
             in record['per_verb'].items()}
    good = sum(entry['success'] for entry in verbs.values())
    count = sum(entry['episodes'] for entry in verbs.values())
    return {'name': record.get('stage') or CLOSED_LOOP, 'step': step, 'verbs': verbs,
            'all': _entry(good, count), 'nearest': record.get('nearest_block_is_target')}


def _entry(good: int, count: int) -> dict[str, Any]:
    """Return {'success', 'episodes', 'rate', 'interval_95'}."""
    return {'success': good, 'episodes': count, 'rate': good / count if count else 0.0,
            'interval_95': wilson_interval(good, count)}


def _samples_step(history: History) -> int | None:
    found = history.last(lambda record: record.get('samples'))
    return None if found is None else found[0]


def _samples(history: History, folder: Path) -> list[dict[str, Any]]:
    """Return the last validation's samples with their pictures as data URIs, '' if missing."""
    found = history.last(lambda record: record.get('samples'))
    if found is None:
        return []
    return [{**sample, 'uri': _data_uri(folder, sample.get('picture', '')),
             'right': same_answer(sample['wanted'], sample['predicted'])}
            for sample in found[1]['samples']]


def _data_uri(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        return ''
    packed = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.convert('RGB').save(packed, 'JPEG', quality=_JPEG_QUALITY)
    except (UnidentifiedImageError, OSError):
        # Half a picture, as a full disk leaves it.
        return ''
    return 'data:image/jpeg;base64,' + base64.b64encode(packed.getvalue()).decode('ascii')


def _configuration(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows of what was run and where."""
    rows = [(name.replace('_', ' '), _figure(value)) for name, value in provenance.items()
            if name not in _NOT_CONFIGURATION and isinstance(value, str | int | float)]
    return rows + [(name, str(value)) for name, value in
                   (provenance.get('versions') or {}).items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a folder; 0, or 2 with one line about what was wrong."""
    parser = argparse.ArgumentParser(
        prog='python -m vla_policy_node.training.report',
        description='Write report.html of a training from its log.')
    parser.add_argument('folder', type=Path, help='folder of a run, with log.jsonl')
    try:
        print(write_report(parser.parse_args(arguments).folder))
    except (ReportError, OSError) as error:
        print(f'report: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
