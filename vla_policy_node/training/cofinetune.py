"""
Train a policy from a configuration: cofinetune --config FILE.yaml

    cofinetune --config config/training/tabletop.yaml --out models/tabletop
    cofinetune --config config/training/finetune_example.yaml --dry-run
    accelerate launch -m vla_policy_node.training.cofinetune --config FILE.yaml

`recipe: curriculum` builds the tabletop model from scratch in the simulator; `recipe: finetune`
tunes any vision-language model on robot and vision-language data.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
import shutil
import sys
from typing import Any

from rich.console import Console

from vla_policy_node.training.display import Display
from vla_policy_node.training.journal import Journal
from vla_policy_node.training.report import PROVENANCE_NAME
from vla_policy_node.training.report import write_report
from vla_policy_node.training.tensorboard import TensorBoard
from vla_policy_node.yaml_file import read_mapping

RECIPES = ('curriculum', 'finetune')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 with one line about what was wrong."""
    options = _parse(arguments)
    console = Console(stderr=True, quiet=not _is_first_process())
    try:
        content = read_mapping(options.config, examples='config/training')
        start = _START[_recipe(content, options.config)]
        start(content, options, console)
    except (ValueError, OSError) as error:
        console.print(f'cofinetune: {error}', style='red', markup=False, highlight=False,
                      soft_wrap=True)
        return 2
    return 0


def _curriculum(content: Mapping[str, Any], options: argparse.Namespace, console: Console) -> None:
    from vla_policy_node.training.config import parse_config

    config = parse_config(content, options.config)
    if options.dry_run:
        from vla_policy_node.training.dry_run import dry_run

        dry_run(config, console)
        return

    def train(work: Path, out: Path, journal: Journal) -> None:
        # Imported here so that a wrong configuration is named before torch is loaded.
        from vla_policy_node.training.run import Run

        Run(config, work, journal.write).complete(out)

    stages = {stage.name: getattr(stage, 'steps', 0) for stage in config.stages}
    _train(config.name, stages, train, options, console)


def _finetune(content: Mapping[str, Any], options: argparse.Namespace, console: Console) -> None:
    from vla_policy_node.training.finetune.config import parse_config

    config = parse_config(content, options.config)
    if options.dry_run:
        from vla_policy_node.training.finetune.dry_run import dry_run

        dry_run(config, _work(options, config.name), console)
        return

    def train(work: Path, out: Path, journal: Journal) -> None:
        from vla_policy_node.training.finetune.run import run

        run(config, work, out, journal)

    _train(config.name, {'': config.training.steps}, train, options, console)


_START = {'curriculum': _curriculum, 'finetune': _finetune}


def _train(
    name: str, stages: Mapping[str, int], train: Callable[[Path, Path, Journal], None],
    options: argparse.Namespace, console: Console,
) -> None:
    """Train with everything a person wants to see of it; only the first process shows it."""
    work = _work(options, name)
    out = options.out or work / 'checkpoint'
    if not _is_first_process():
        with Journal(work) as journal:
            train(work, out, journal)
        return
    with Display(name, stages, console) as display, \
            Journal(work, [TensorBoard(work), display]) as journal:
        train(work, out, journal)
    shutil.copyfile(out / PROVENANCE_NAME, work / PROVENANCE_NAME)
    console.print(f'policy: {out}\nreport: {write_report(work)}', markup=False, highlight=False)


def _work(options: argparse.Namespace, name: str) -> Path:
    return options.work or Path('out') / name


def _is_first_process() -> bool:
    # As torchrun and accelerate name it; without either there is only one.
    return int(os.environ.get('RANK', '0')) == 0


def _recipe(content: Mapping[str, Any], path: Path) -> str:
    recipe = content.get('recipe')
    if recipe not in RECIPES:
        raise ValueError(f'{path}: recipe: expected one of {", ".join(RECIPES)}, found '
                         f'{recipe!r}; correct or add it')
    return recipe


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='cofinetune', description=__doc__.splitlines()[1])
    parser.add_argument('--config', type=Path, required=True, help='training configuration, YAML')
    parser.add_argument(
        '--out', type=Path, help='policy folder (default out/<name>/checkpoint)')
    parser.add_argument(
        '--work', type=Path, help='states, logs, pictures and report.html (default out/<name>)')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='print the mixture, read one batch of every source back, check every label')
    return parser.parse_args(arguments)


if __name__ == '__main__':
    sys.exit(main())
