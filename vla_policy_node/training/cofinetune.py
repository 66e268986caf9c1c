"""
Train a policy from a configuration: python -m vla_policy_node.training.cofinetune --config ...

    cofinetune --config config/training/tabletop.yaml --out models/tabletop
    cofinetune --config config/training/smoke.yaml --out /tmp/smoke        (under a minute)
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from vla_policy_node.training.config import load_config
from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.config import TrainingConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 with one line about what was wrong."""
    options = _parse(arguments)
    console = Console(stderr=True)
    try:
        config = load_config(options.config)
        work = options.work or Path('out/training') / config.name
        out = options.out or Path('models') / config.name
        console.print(mixture_table(config))
        _train(config, work, out, console)
    except (ValueError, OSError) as error:
        console.print(f'cofinetune: {error}', style='red', markup=False, highlight=False,
                      soft_wrap=True)
        return 2
    console.print(f'checkpoint written to {out}')
    return 0


def mixture_table(config: TrainingConfig) -> Table:
    """Return what each stage will see: samples, and each source's share of them."""
    table = Table(title=f'{config.name}: stages and mixture')
    for column in ('stage', 'kind', 'steps', 'images', 'prompts', 'shares'):
        table.add_column(column)
    for stage in config.stages:
        if isinstance(stage, MixtureStage):
            prompts = stage.steps * stage.images * stage.prompts_per_image
            shares = ', '.join(f'{name} {share:.0%}' for name, share in stage.shares.items())
            table.add_row(stage.name, stage.kind, str(stage.steps),
                          str(stage.steps * stage.images), str(prompts), shares)
        elif stage.kind == 'alignment':
            table.add_row(stage.name, stage.kind, str(stage.steps),
                          str(stage.steps * stage.images), '', '')
        elif stage.kind == 'simulate':
            table.add_row(stage.name, stage.kind, '', f'{stage.scenes.scenes} scenes', '', '')
        else:
            table.add_row(stage.name, stage.kind, str(stage.steps_per_episode),
                          f'{stage.episodes} episodes', '', '')
    return table


def _train(config: TrainingConfig, work: Path, out: Path, console: Console) -> None:
    # Imported here so that a wrong configuration is named before torch is loaded.
    from vla_policy_node.training.run import Run

    with _Display(config, console) as display:
        run = Run(config, work, display)
        run.train(out)
        measured: Mapping[str, Any] = {}
        if config.closed_loop_episodes:
            measured = run.evaluate(config.closed_loop_episodes)
            display({'stage': 'closed loop', **measured})
        run.save(out, measured)


class _Display:
    """Progress on the terminal: one bar over all steps, one line per record."""

    def __init__(self, config: TrainingConfig, console: Console) -> None:
        from rich.progress import Progress

        self._progress = Progress(console=console)
        self._before, total = {}, 0
        for stage in config.stages:
            self._before[stage.name] = total
            total += getattr(stage, 'steps', 0)
        self._bar = self._progress.add_task(config.name, total=total)

    def __enter__(self) -> '_Display':
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Show one record of the run."""
        if 'step' in record:
            done = self._before[record['stage']] + record['step']
            self._progress.update(self._bar, completed=done)
        self._progress.console.print(_line(record), markup=False, highlight=False)


def _line(record: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ' '.join(f'{name}={text(item)}' for name, item in value.items())
        return f'{value:.3g}' if isinstance(value, float) else str(value)
    return '  '.join(f'{name} {text(value)}' for name, value in record.items())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='cofinetune', description=__doc__.splitlines()[1])
    parser.add_argument('--config', type=Path, required=True, help='training configuration, YAML')
    parser.add_argument('--out', type=Path, help='checkpoint folder (default models/<name>)')
    parser.add_argument(
        '--work', type=Path, help='frames, state and log (default out/training/<name>)')
    return parser.parse_args(arguments)


if __name__ == '__main__':
    sys.exit(main())
