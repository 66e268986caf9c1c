"""The tables at the end of a replay, for a terminal."""

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from vla_policy_node.evaluation.replay import report_rows


def rivals(summary: Mapping) -> Table:
    """Return the policy beside the baselines."""
    found = report_rows.rivals_table(summary)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('')
    for name in found['names']:
        # One word a line, so that the table fits into 80 characters.
        table.add_column(name.replace(' ', '\n'), justify='right')
    for row in found['rows']:
        table.add_row(escape(row['label']), *(
            f'[bold]{cell["text"]}[/]' if cell['best'] else cell['text']
            for cell in row['cells']))
    return table


def facts(summary: Mapping) -> list[str]:
    """Return latency and what was left out, a line each."""
    latency = summary['latency_ms']
    lines = []
    if latency['count']:
        lines.append('latency ' + ', '.join(
            f'{name} {report_rows.number(latency[name])} ms' for name in ('p50', 'p95', 'p99')))
    lines += [f'left out: {reason} ({count})'
              for reason, count in report_rows.left_out(summary)]
    lines += [f'warning: {text}' for text in summary['meta']['warnings']]
    compared = summary['against']
    if compared and compared['token_agreement']:
        agreement = compared['token_agreement']['overall']['value']
        lines.append(f'{compared["name"]} against {compared["against"]}: '
                     f'{100 * agreement:.1f} % equal tokens')
    return lines
