"""Shows what a run would train on, without loading the model's weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.examples import ExampleBuilder
from vla_policy_node.training.finetune.parts import open_parts
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.run import builder_of
from vla_policy_node.training.finetune.run import CACHE
from vla_policy_node.training.pictures import action_text
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.weights import mixture_table


def dry_run(config: FinetuneConfig, work: Path, console: Console) -> None:
    """
    Print the mixture, and one batch of every source read back from its labels.

    work: where sources keep what they make once, as in the run itself. Raises ValueError as the
    run would, and SourceError for a source whose batch has no usable record.
    """
    show(config, open_parts(config, work / CACHE), console)


def show(config: FinetuneConfig, parts: Parts, console: Console) -> None:
    """Do the same with parts that are open already, for one process."""
    settings = config.training
    samples = settings.steps * settings.batch_size * settings.accumulation
    console.print(f'{config.name}: {settings.steps} steps of '
                  f'{settings.batch_size * settings.accumulation} records per process')
    console.print(mixture_table(parts.mixture(samples)))
    builder = builder_of(config, parts)
    space = ActionSpace(stats=parts.stats, **parts.language.action_space.model_dump())
    for source in parts.train.values():
        examples = _batch(config, source, builder)
        console.print(f'{source.name}: the first prompt is '
                      f'{_prompt(parts, examples[0])!r}', markup=False, highlight=False)
        console.print(_table(parts, space, examples))


def _batch(
    config: FinetuneConfig, source: Source, builder: ExampleBuilder
) -> list[Example]:
    """Build a batch of random records; every action label has been decoded when it is built."""
    chosen = np.random.default_rng(config.seed).permutation(len(source))
    examples, fault = [], 'no record'
    for index in chosen[:config.training.batch_size].tolist():
        try:
            examples.append(builder.build(source[index]))
        except RecordError as error:
            fault = f'record {index}: {error}'
    if not examples:
        raise SourceError(f'source {source.name}: expected a usable record among '
                          f'{config.training.batch_size}, found none, the last {fault}; repair '
                          'the source')
    return examples


def _table(parts: Parts, space: ActionSpace, examples: Sequence[Example]) -> Table:
    table = Table('asked', 'answer, read back from its tokens', 'tokens')
    for example in examples:
        table.add_row(example.asked, _read(parts, space, example),
                      f'{example.length + 1 - len(example.answer)} + {len(example.answer)}')
    return table


def _read(parts: Parts, space: ActionSpace, example: Example) -> str:
    """Return the answer of an example in words, from its ids alone."""
    language = parts.language
    if example.kind == 'text':
        return language.processor.tokenizer.decode(example.answer, skip_special_tokens=True)
    decoded = language.actions.decode(example.answer)
    actions = space.to_canonical(space.stats.unnormalize(decoded.actions))
    plan = [*language.processor.tokenizer.decode(decoded.plan_ids).split(),
            *(f'{(value + 1.0) / 2.0:.2f}' for value in decoded.plan)]
    ends = ['and ends'] if decoded.terminate else []
    return ' '.join([*plan, *(['|'] if plan else []), action_text(actions), *ends])


def _prompt(parts: Parts, example: Example) -> str:
    """Return a prompt as the model reads it, the many tokens of a picture as one."""
    tokenizer = parts.language.processor.tokenizer
    ids = example.inputs['input_ids'][0].tolist()
    kept = [token for place, token in enumerate(ids) if place == 0 or token != ids[place - 1]]
    return tokenizer.decode(kept)
