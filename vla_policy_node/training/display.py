"""
What a person sees while a training runs: a live display, or plain lines without a terminal.

Knows nothing but the records of the journal.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vla_policy_node.training.journal import Record

# Records over which the time left is estimated: long enough to be calm, short enough to follow a
# stage whose steps take longer.
_PACE_RECORDS = 20
_NAME_COLUMN = 18


class Display:
    """
    A sink of the journal that shows a run on `console`, best the one of stderr.

    stages: name -> steps, in order; a run without stages has one that is named ''. On a terminal
    a bar over all steps with the newest figures below it; elsewhere one line per record.
    """

    def __init__(self, title: str, stages: Mapping[str, int], console: Console) -> None:
        self._title = title
        self._stages = dict(stages)
        self._total = sum(self._stages.values())
        self._console = console
        self._done = 0
        self._minutes: float | None = None
        self._pace: deque[tuple[int, float]] = deque(maxlen=_PACE_RECORDS)
        self._figures: dict[str, str] = {}
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4) \
            if console.is_terminal else None

    def __enter__(self) -> 'Display':
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, record: Record) -> None:
        """Show one record."""
        self._place(record)
        if self._live is None:
            self._print(self._line(record))
        elif record.get('kind') == 'mixture':
            self._console.print(mixture_table(record))
        elif 'step' in record and record.get('kind') != 'event':
            self._figures.update(self._parts(record))
        else:
            self._print(self._line(record))

    def _place(self, record: Record) -> None:
        if 'step' not in record or record.get('kind') == 'event':
            return
        stage = record.get('stage', '')
        if stage not in self._stages:
            self._stages[stage] = record.get('of', record['step'])
            self._total = sum(self._stages.values())
        names = list(self._stages)
        before = sum(self._stages[name] for name in names[:names.index(stage)])
        self._done = before + record['step']
        if 'minutes' in record:
            self._minutes = record['minutes']
            self._pace.append((self._done, self._minutes))

    def _minutes_left(self) -> float | None:
        """Return the estimate from the newest records; None until there are two."""
        if len(self._pace) < 2:
            return None
        (first, began), (last, ended) = self._pace[0], self._pace[-1]
        steps = last - first
        return (ended - began) / steps * (self._total - last) if steps > 0 else None

    def _parts(self, record: Record) -> dict[str, str]:
        if record.get('kind') == 'validation':
            place = f"at step {record['step']:,}"
            return {'last validation': '   '.join([place, *_validation_parts(record)])}
        parts = dict(_training_parts(record))
        if 'held_out' in record and record['held_out']:
            parts['held out'] = _numbers(record['held_out'])
        return parts

    def _line(self, record: Record) -> str:
        """Return the record as one line for a log file."""
        if record.get('kind') == 'event':
            return _event_line(record)
        if record.get('kind') == 'mixture':
            return 'mixture: ' + '; '.join(_source_text(entry) for entry in record['sources'])
        if 'step' not in record:
            return _other_line(record)
        stage = f"{record['stage']} " if record.get('stage') else ''
        of = f"/{record['of']}" if 'of' in record else ''
        head = f"{stage}step {record['step']}{of}"
        if record.get('kind') == 'validation':
            return f'validation at {head}: ' + '  '.join(_validation_parts(record))
        figures = '  '.join(f'{name} {text}' for name, text in self._parts(record).items())
        return f'{head}  {self._share()}  {figures}  {self._left_text()}'.rstrip()

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _share(self) -> str:
        return _percent(self._done / self._total) if self._total else ''

    def _left_text(self) -> str:
        left = self._minutes_left()
        return '' if left is None or self._done >= self._total else f'{duration(left)} left'

    def _picture(self) -> Group:
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(width=_NAME_COLUMN, no_wrap=True, overflow='ellipsis')
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        steps = f'{self._done:,}/{self._total:,}  {self._share()}  {self._left_text()}'
        head.add_row(Text(self._title, style='bold'),
                     ProgressBar(total=max(self._total, 1), completed=self._done), Text(steps))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=_NAME_COLUMN, style='dim')
        grid.add_column()
        for name, text in self._figures.items():
            grid.add_row(name, Text(text))
        return Group(head, grid)


def mixture_table(record: Record) -> Table:
    """Return a mixture record as a table: what each source has and how often it is seen."""
    table = Table(title='mixture', box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('source')
    for name in ('records', 'episodes', 'share', 'seen per record'):
        table.add_column(name, justify='right')
    for entry in record['sources']:
        episodes = entry.get('episodes')
        table.add_row(
            entry['name'], f"{entry['records']:,}", '' if episodes is None else f'{episodes:,}',
            _percent(entry['share']), f"{entry['seen_per_record']:.2f}")
    return table


def duration(minutes: float) -> str:
    """Return '45 s', '12 min' or '3 h 05 min'."""
    if minutes < 1:
        return f'{60 * minutes:.0f} s'
    whole = round(minutes)
    return f'{whole} min' if whole < 60 else f'{whole // 60} h {whole % 60:02d} min'


def _training_parts(record: Record) -> Iterator[tuple[str, str]]:
    if record.get('loss'):
        yield 'loss', _numbers(record['loss'])
    if record.get('lr') is not None:
        yield 'lr', f"{record['lr']:.2g}"
    if record.get('samples_per_s') is not None:
        yield 'samples/s', f"{record['samples_per_s']:.3g}"
    if record.get('waiting_share') is not None:
        yield 'waiting for data', _percent(record['waiting_share'])
    if record.get('skipped') is not None:
        yield 'skipped records', f"{record['skipped']:,}"
    if record.get('minutes') is not None:
        yield 'time', duration(record['minutes'])


def _validation_parts(record: Record) -> Iterator[str]:
    if record.get('loss'):
        yield f"loss {_numbers(record['loss'])}"
    accuracy = (record.get('token_accuracy') or {}).get('all')
    if accuracy is not None:
        majority = (record.get('majority_accuracy') or {}).get('all')
        beside = '' if majority is None else f' (majority {_percent(majority)})'
        yield f'token accuracy {_percent(accuracy)}{beside}'
    error = (record.get('l1_normalised') or {}).get('all')
    if error is not None:
        yield f'L1 {error:.3f}'
    answers = record.get('answers') or {}
    if answers.get('count'):
        yield f"answers {_percent(answers['exact_match'])} of {answers['count']}"
    if record.get('held_out'):
        yield _numbers(record['held_out'])


def _event_line(record: Record) -> str:
    at = f" at step {record['step']:,}" if 'step' in record else ''
    detail = f": {record['detail']}" if record.get('detail') else ''
    return f"{record['name'].replace('_', ' ')}{at}{detail}"


def _other_line(record: Record) -> str:
    """Return the line of a record that has no step: frames collected, closed loop, scenes."""
    parts = [record.get('stage') or record.get('kind', 'record')]
    if record.get('episodes'):
        parts.append(f"{record['successes']} of {record['episodes']} episodes succeeded")
    parts += [f'{verb} {good}/{count}' for verb, (good, count)
              in (record.get('per_verb') or {}).items()]
    if 'nearest_block_is_target' in record:
        parts.append(f"nearest block is the named one {record['nearest_block_is_target']}")
    parts += [f'{record[name]:,} {name}' for name in ('frames', 'scenes') if name in record]
    if 'minutes' in record:
        parts.append(duration(record['minutes']))
    return '  '.join(parts)


def _source_text(entry: Mapping[str, Any]) -> str:
    return (f"{entry['name']} {_percent(entry['share'])}, {entry['records']:,} records,"
            f" each seen {entry['seen_per_record']:.2f} times")


def _percent(share: float) -> str:
    return f'{100 * share:.0f} %'


def _numbers(values: Mapping[str, Any]) -> str:
    return '  '.join(f'{name} {"?" if value is None else format(value, ".3g")}'
                     for name, value in values.items())
