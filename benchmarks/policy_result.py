"""Times and counted work -> rates, ratios and a table; knows nothing of models or torch."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

OURS, GENERATE, BFLOAT16 = 'ours', 'generate', 'generate, bfloat16'
# What the engine says of its own run, and what the parts are called when timed one by one.
FIRST, OTHERS = 'first logits', 'further tokens'
VISION, PREFILL, STEP, WHOLE = 'vision', 'prefill', 'decode step', 'all parts'
_PERCENTILES = (5, 50, 95)
_AS_IT_RUNS = (FIRST, OTHERS, OURS, GENERATE, BFLOAT16)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p5, p50 and p95."""
    return {f'p{percentile}': float(np.percentile(values, percentile))
            for percentile in _PERCENTILES}


def speedup(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return how many times faster ours is: by medians, and percentiles over the rounds."""
    pairs = np.array(theirs) / np.array(ours)
    return {'of medians': float(np.median(theirs) / np.median(ours)), **percentiles(pairs)}


def rates(
    ms: Mapping[str, Mapping[str, float]], work: Mapping[str, float], peaks: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """
    Return per row what it reaches and which share of the device's peak that is.

    :param ms: percentiles of every row.
    :param work: vision_flop, prefill_flop, step_bytes, as counted.
    :param peaks: tflop_per_s and gb_per_s, as measured.
    """
    steps = sum(name.startswith(f'{STEP} ') for name in ms)
    median = {name: row['p50'] for name, row in ms.items()}
    prompt_flop = work['vision_flop'] + work['prefill_flop']
    flop = {VISION: work['vision_flop'], PREFILL: work['prefill_flop'], FIRST: prompt_flop}
    read = {STEP: work['step_bytes'], OTHERS: steps * work['step_bytes']}
    found = {name: {'tflop_per_s': count / median[name] / 1e9} for name, count in flop.items()}
    found |= {name: {'gb_per_s': size / median[name] / 1e6} for name, size in read.items()}
    for row in found.values():
        ((unit, value),) = row.items()
        row['share_of_peak'] = value / peaks[unit]
    return found


def show(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a table of the times and a line on everything else."""
    console = console or Console()
    console.print(_table(result))
    for line in _lines(result):
        console.print(line, highlight=False)


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(title=(
        f'{result["checkpoint"] or result["case"]}, {result["parameters"] / 1e6:.1f} M, '
        f'{result["dtype"]}, quantization {result["quantization"]}, {result["device"]}'))
    table.add_column('')
    for title in ('p5 [ms]', 'median', 'p95', 'rate', 'of peak'):
        table.add_column(title, justify='right')
    ms = result['ms']
    parts = [name for name in ms
             if name not in _AS_IT_RUNS and not name.startswith(f'{STEP} ')]
    for name in parts:
        table.add_row(name, *_cells(ms[name], result['rates'].get(name)),
                      end_section=name == parts[-1])
    for name in _AS_IT_RUNS:
        if name in ms:
            table.add_row(f'as it runs: {name}', *_cells(ms[name], result['rates'].get(name)))
    return table


def _cells(row: Mapping[str, float], rate: Mapping[str, float] | None) -> list[str]:
    times = [f'{value:.3g}' if value < 100 else f'{value:.0f}' for value in row.values()]
    if rate is None:
        return [*times, '', '']
    value = f'{rate["tflop_per_s"]:.3g} TFLOP/s' if 'tflop_per_s' in rate \
        else f'{rate["gb_per_s"]:.3g} GB/s'
    return [*times, value, f'{rate["share_of_peak"]:.0%}']


def _lines(result: Mapping[str, Any]) -> list[str]:
    peaks, machine = result['peaks'], result['machine']
    lines = [
        f'{name}: ours is {ratio["of medians"]:.2f} times as fast (pairs: median '
        f'{ratio["p50"]:.2f}, p5 to p95 {ratio["p5"]:.2f} to {ratio["p95"]:.2f})'
        for name, ratio in result['speedup'].items()]
    lines += [
        f'same tokens as {name}: {count["same"]} of {count["frames"]} frames, '
        f'{count["distinct"]} different actions' for name, count in result['same_tokens'].items()]
    lines.append(
        f'{result["action_tokens"]} tokens after {result["prompt_positions"]} positions, '
        f'{result["tokens_per_s"]:.1f} tokens/s; {result["rounds"]} rounds, '
        f'{result["threads"]} thread(s)')
    lines.append(f'peaks: {peaks["gb_per_s"]:.3g} GB/s, {peaks["tflop_per_s"]:.3g} TFLOP/s on '
                 f'{machine.get("gpu", machine["cpu"])}')
    lines.append('MB: ' + ', '.join(
        f'{name} {size / 1e6:.0f}' for name, size in result['memory_bytes'].items()))
    return lines
