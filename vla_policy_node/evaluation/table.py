"""The table at the end of a demo, for a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vla_policy_node.evaluation.summary import FLOOR_NAMES
from vla_policy_node.statistics import percent_text

# Column heads that let the table fit into 80 characters.
_SHORT = {'wrong_instruction': 'wrong\ninstr.', 'policy_lock_step': 'lock-\nstep'}
# A share of rejected chunks from which on the table says why.
_MANY_REJECTED = 0.05


def rate_text(entry: Mapping) -> str:
    """Return '7/12  58 % [32, 81]' of a success entry; a dash without episodes."""
    if not entry or not entry['episodes']:
        return '-'
    low, high = entry['interval_95']
    return (f"{entry['success']}/{entry['episodes']}  {percent_text(entry['rate'])} %"
            f' [{100 * low:.0f}, {100 * high:.0f}]')


def number(value: float | None, unit: str, digits: int = 0) -> str:
    """Return '12 ms', or 'not measured' for None."""
    return 'not measured' if value is None else f'{value:.{digits}f} {unit}'.rstrip()


def success_table(summary: Mapping) -> Table:
    """Return success per task of the policy beside the floors."""
    floors = {name: summary['floors'][name] for name in FLOOR_NAMES if name in summary['floors']}
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column('task', no_wrap=True)
    table.add_column('policy, live\n[95 % interval]', style='bold', no_wrap=True)
    for name in floors:
        table.add_column(_SHORT.get(name, FLOOR_NAMES[name]), no_wrap=True)
    for verb, entry in summary['per_task'].items():
        table.add_row(verb, rate_text(entry), *(
            _count(floor['per_task'].get(verb)) for floor in floors.values()))
    overall = {'success': summary['successes'], 'episodes': summary['episodes'],
               'rate': summary['success_rate'], 'interval_95': summary['success_interval_95']}
    table.add_section()
    table.add_row('all', rate_text(overall), *map(_count, floors.values()))
    return table


def measurement_rows(summary: Mapping) -> Sequence[tuple[str, str]]:
    """Return (what, value) of rate, latency and frames."""
    latency = summary['latency_ms']
    frames = summary['frames']
    chunks = summary['chunks']
    layers = summary['linear4bit_layers']
    return (
        ('policy rate', number(summary['policy_hz'], 'Hz', 1)),
        ('camera stamp to command', '  '.join(
            f'{name} {number(value, "ms")}' for name, value in latency.items())),
        ('control loop jitter', '  '.join(
            f'{name} {number(value, "ms", 1)}'
            for name, value in summary['loop_jitter_ms'].items())),
        ('frames', _counts(frames, tuple(frames))),
        ('chunks', _counts(chunks, ('published', 'accepted', 'rejected', 'decode_failures'))),
        ('quantization', f"{summary['quantization']}, {layers} layers in 4 bit"),
    )


def terminal_summary(summary: Mapping) -> Group:
    """Return everything a demo prints at its end."""
    facts = Table.grid(padding=(0, 2))
    for name, value in measurement_rows(summary):
        facts.add_row(Text(name, style='dim'), value)
    note = Text(
        'live is real time over ROS; elsewhere the simulation waits for each action, on the'
        ' same scenes', style='dim')
    parts = [success_table(summary), note, Text(), facts]
    chunks = summary['chunks']
    if (chunks.get('rejected') or 0) > _MANY_REJECTED * (chunks.get('published') or 0):
        parts += [Text(), Text(
            f"{chunks['rejected']} chunks were rejected by the controller, the last one:"
            f" {chunks['last_rejection']}", style='yellow')]
    return Group(*parts)


def _counts(counters: Mapping, names: Sequence[str]) -> str:
    return ', '.join(
        f'{"?" if counters.get(name) is None else counters[name]} {name.replace("_", " ")}'
        for name in names)


def _count(entry: Mapping | None) -> str:
    return f"{entry['success']}/{entry['episodes']}" if entry else '-'
