"""summary.json, the table and the last line; knows nothing of what was injected."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import tempfile
from typing import Any

from rich import box
from rich.table import Table

from faults.playing import Result

_PACKAGES = ('numpy', 'opencv-python-headless', 'safetensors', 'tokenizers', 'torch',
             'transformers')


def summarise(results: Mapping[str, Result], *, seed: int, short: bool) -> dict[str, Any]:
    """Return what summary.json holds; without any result nothing was proven, which is a miss."""
    totals = {name: sum(result[name] for result in results.values())
              for name in ('injected', 'held', 'missed')}
    if not results:
        totals['injected'] = totals['missed'] = 1
    return {**totals, 'seed': seed, 'short': short, 'versions': _versions(),
            'machine': _machine(), 'cases': dict(results)}


def write_summary(summary: Mapping[str, Any], folder: Path) -> Path:
    """Write summary.json in one step: a reader sees the old file or the new one."""
    target = folder / 'summary.json'
    handle, temporary = tempfile.mkstemp(dir=folder, prefix='.summary.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as stream:
            json.dump(summary, stream, indent=2)
            stream.write('\n')
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from other users
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def last_line(summary: Mapping[str, Any]) -> str:
    """Return the line that ends every run."""
    return (f'faults: {summary["injected"]} injected, {summary["held"]} held, '
            f'{summary["missed"]} missed')


def table(summary: Mapping[str, Any]) -> Table:
    """Return a row per case."""
    form = 'short form' if summary['short'] else 'full form'
    shown = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
        title=f'Faults, {form}, seed {summary["seed"]}',
        caption='p99 and worst: from the fault to the first zero command, in ms')
    shown.add_column('case', overflow='fold')
    for title in ('injected', 'held', 'missed', 'p99', 'worst', 's'):
        shown.add_column(title, justify='right', no_wrap=True)
    for name, result in summary['cases'].items():
        times = result.get('fault_to_zero_ms')
        shown.add_row(
            name, f'{result["injected"]:,}', f'{result["held"]:,}', f'{result["missed"]:,}',
            *([f'{times["p99"]:.0f}', f'{times["worst"]:.0f}'] if times else ['', '']),
            f'{result["duration_s"]:.0f}', style='bold red' if result['missed'] else '')
    return shown


def miss_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return a line per miss that was kept, with what it takes to repeat it."""
    return [
        f'{name}: episode {miss["episode"]} of seed {miss["seed"]}: {miss["found"]}'
        + (f'; given {miss["given"]}' if miss['given'] else '')
        for name, result in summary['cases'].items() for miss in result['misses']]


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'not installed'
    return found


def _machine() -> dict[str, Any]:
    info = Path('/proc/cpuinfo')
    lines = info.read_text(encoding='ascii').splitlines() if info.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return {'cpu': names[0] if names else platform.processor(), 'cpus': os.cpu_count(),
            'system': platform.platform(), 'load_average': os.getloadavg()[0]}
