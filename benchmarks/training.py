"""
Compare our fine-tuning loop with transformers' Trainer: samples per second of the same work.

    python benchmarks/training.py                                # both cases
    python benchmarks/training.py --case tiny --rounds 12 --steps 30
    python benchmarks/training.py --case paligemma --output out/training.json

Both get the same weights, records, optimiser, precision and clipping, and both make examples of
records as they go; the losses of their first and last steps show that they do the same work.
Rounds alternate in one process, so that other load on the machine meets both. What counts is the
ratio: above 1 means that ours is faster. Trainer runs with and without a worker process, and its
better way is what ours is compared with. A third row shows how much of the ratio is due to what
we do about slow kernels on CPUs: Trainer with a model treated in the same way.
"""

from collections.abc import Callable
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import replace
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import GemmaConfig
from transformers import PaliGemmaConfig
from transformers import PaliGemmaForConditionalGeneration
from transformers import PrinterCallback
from transformers import SiglipVisionConfig
from transformers import Trainer
from transformers import TrainerCallback
from transformers import TrainingArguments
import typer

from vla_policy_node.training.finetune import training as ours
from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.config import parse_config
from vla_policy_node.training.finetune.examples import Example
from vla_policy_node.training.finetune.examples import ExampleBuilder
from vla_policy_node.training.finetune.kernels import use_cpu_kernels
from vla_policy_node.training.finetune.objective import AnswerModel
from vla_policy_node.training.finetune.parts import open_parts
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.run import accelerating
from vla_policy_node.training.finetune.run import builder_of
from vla_policy_node.training.finetune.run import collator_of
from vla_policy_node.training.finetune.run import load_trainable
from vla_policy_node.training.finetune.run import optimiser_of
from vla_policy_node.training.finetune.state import StateFolder
from vla_policy_node.training.finetune.steps import Stepper
from vla_policy_node.training.finetune.stream import ExampleStream
from vla_policy_node.training.finetune.stream import StreamPlan
from vla_policy_node.training.finetune.tuning import make_trainable

BASE = Path(__file__).resolve().parents[1] / 'models' / 'tabletop'
OURS = 'our loop'
THEIRS = {'Trainer': 0, 'Trainer, 1 worker': 1}
HELPED = 'same, our kernels'
TARGETS = {'tiny': 1.2, 'paligemma': 1.0}
LARGEST_WAITING_SHARE = 0.05
_SPREAD = (5, 95)
_PATCH = 8  # of PaliGemma: 256 image tokens, as it has for its own pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both ways train: a model, and the way from records to batches."""

    config: FinetuneConfig
    parts: Parts
    model: nn.Module
    builder: Callable[..., Example]
    collator: Collator


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """
    Steps of one way; the first is not in the times, because it starts what prepares records.

    cpu_ms: processor time of this process per sample, that of worker processes not included.
    """

    samples_per_s: float
    cpu_ms: float
    losses: list[float]
    waiting_share: float = 0.0


def main(
    case: str = typer.Option('all', help='tiny, paligemma or all.'),
    rounds: int = typer.Option(8, min=1, help='Timed rounds of each way.'),
    steps: int = typer.Option(0, min=0, help='Timed steps of a round; 0: 30 and 4.'),
    threads: int = typer.Option(1, min=1, help='CPU threads of torch.'),
    work: str = typer.Option('out/benchmarks', help='Where simulated frames are kept.'),
    output: str = typer.Option('', help='Where to write the JSON.'),
) -> None:
    """Time both loops and print the ratios; exit code 1 where a target is missed."""
    torch.set_num_threads(threads)
    makers = {'tiny': (tiny, 30), 'paligemma': (paligemma, 4)}
    if case not in (*makers, 'all'):
        raise typer.BadParameter(f'expected {", ".join(makers)} or all, found {case!r}')
    results = {}
    for name in makers if case == 'all' else [case]:
        make, usual = makers[name]
        results[name] = compare(name, make(Path(work), steps or usual), rounds)
        results[name]['threads'] = threads
        show(name, results[name])
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps(results, indent=2) + '\n')
    raise typer.Exit(0 if all(result['met'] for result in results.values()) else 1)


def compare(name: str, case: Case, rounds: int) -> dict[str, Any]:
    """Return samples per second of each way and round, ratio and spread, losses, waiting."""
    ways: dict[str, Callable[[], Round]] = {
        OURS: lambda: our_round(case),
        **{way: lambda workers=workers: their_round(case, workers)
           for way, workers in THEIRS.items()},
        HELPED: lambda: their_round(case, 0, our_kernels=True)}
    before = os.getloadavg()[0]
    found: dict[str, list[Round]] = {way: [] for way in ways}
    for number in track(range(rounds), name, console=Console(stderr=True)):
        # Alternating the order keeps each from always following the same other one.
        for way in list(ways)[:: 1 if number % 2 else -1]:
            found[way].append(ways[way]())
    speeds = {way: np.array([one.samples_per_s for one in all_]) for way, all_ in found.items()}
    best = max(THEIRS, key=lambda way: float(np.median(speeds[way])))
    paired = speeds[OURS] / speeds[best]
    waiting = [one.waiting_share for one in found[OURS]]
    result = {
        **describe(case), 'rounds': rounds, 'compared_with': best,
        'ratio_of_medians': float(np.median(speeds[OURS]) / np.median(speeds[best])),
        'median_of_paired_ratios': float(np.median(paired)),
        'paired_ratios': {f'p{p}': float(np.percentile(paired, p)) for p in _SPREAD},
        'target': TARGETS[name],
        'waiting_share': {'median': float(np.median(waiting)), 'largest': max(waiting)},
        'losses': {way: {'first': all_[0].losses[0], 'last': all_[0].losses[-1]}
                   for way, all_ in found.items()},
        'samples_per_s': {way: values.tolist() for way, values in speeds.items()},
        'cpu_ms': {way: float(np.median([one.cpu_ms for one in all_]))
                   for way, all_ in found.items()},
        'processor': processor_name(),
        'load_average': [before, os.getloadavg()[0]],
    }
    met = (result['ratio_of_medians'] >= TARGETS[name]
           and result['waiting_share']['median'] < LARGEST_WAITING_SHARE)
    return {**result, 'met': met}


def processor_name() -> str:
    """Return what the machine calls its processor."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))


def describe(case: Case) -> dict[str, Any]:
    """Return the size of the work."""
    parameters = list(case.model.parameters())
    examples = Examples(case)
    return {
        'parameters': sum(p.numel() for p in parameters),
        'trained': sum(p.numel() for p in parameters if p.requires_grad),
        'tuning': case.config.tuning.method,
        'batch_size': case.config.training.batch_size,
        'timed_steps': case.config.training.steps - 1,
        'tokens': int(np.median([examples[n].length for n in range(16)])),
    }


def our_round(case: Case) -> Round:
    """Train a copy of the model with our loop."""
    settings = case.config.training
    records, marks = [], Marks()

    def write(record: dict) -> None:
        if record['kind'] == 'train':
            marks.on_step_end()
            records.append(record)

    stream = ExampleStream(
        list(case.parts.train.values()), case.parts.sampler(case.config.seed), case.builder,
        StreamPlan(batch_size=settings.batch_size, accumulation=1), seed=case.config.seed,
        workers=settings.workers)
    with accelerating(case.config) as accelerator, TemporaryDirectory() as states:
        model = deepcopy(case.model)
        if accelerator.device.type == 'cpu':
            use_cpu_kernels(model)
        answers = AnswerModel(model, case.parts.language.actions.bin_token_ids)
        prepared, optimiser = accelerator.prepare(answers, optimiser_of(case.config, answers))
        stepper = Stepper(accelerator, prepared, optimiser, case.collator, list(case.parts.train),
                          clip_norm=settings.clip_norm, seed=case.config.seed)
        ours.Trainer(case.config, accelerator, prepared, optimiser, stepper,
                     StateFolder(Path(states)), write, None).train(stream)
    shares = [record['waiting_share'] for record in records[1:]]
    return Round(**marks.speeds(settings.batch_size),
                 losses=[record['loss']['all'] for record in records],
                 waiting_share=float(np.average(shares, weights=np.diff(marks.times))))


def their_round(case: Case, workers: int, our_kernels: bool = False) -> Round:
    """Train a copy of the model with transformers' Trainer, which does nothing but train."""
    settings = case.config.training
    model, marks = deepcopy(case.model), Marks()
    if our_kernels:
        use_cpu_kernels(model)
    with accelerating(case.config), TemporaryDirectory() as folder:
        trainer = LossKeeper(
            model,
            TrainingArguments(
                folder, max_steps=settings.steps, use_cpu=not torch.cuda.is_available(),
                per_device_train_batch_size=settings.batch_size, bf16=True,
                learning_rate=settings.lr, lr_scheduler_type='constant', adam_beta2=0.95,
                weight_decay=settings.weight_decay, max_grad_norm=settings.clip_norm,
                optim='adamw_torch_fused', dataloader_num_workers=workers,
                train_sampling_strategy='sequential', remove_unused_columns=False,
                label_names=['labels'], logging_strategy='no', logging_nan_inf_filter=False,
                save_strategy='no', report_to='none', disable_tqdm=True),
            data_collator=WholeAnswers(case.collator), train_dataset=Examples(case),
            callbacks=[marks])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Round(**marks.speeds(settings.batch_size),
                 losses=[float(loss) for loss in trainer.losses])


class Marks(TrainerCallback):
    """The times at which steps end."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._cpu: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.times.append(perf_counter())
        self._cpu.append(process_time())

    def speeds(self, batch_size: int) -> dict[str, float]:
        """Return samples per second, and processor time per sample [ms], after the first step."""
        samples = batch_size * (len(self.times) - 1)
        return {'samples_per_s': samples / (self.times[-1] - self.times[0]),
                'cpu_ms': 1e3 * (self._cpu[-1] - self._cpu[0]) / samples}


class LossKeeper(Trainer):
    """Keeps the losses without waiting for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[torch.Tensor] = []

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute and keep one."""
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss


class Examples(Dataset):
    """The examples that our loop sees, in its order."""

    def __init__(self, case: Case) -> None:
        self._sources = list(case.parts.train.values())
        self._sampler = case.parts.sampler(case.config.seed)
        self._builder = case.builder
        self._seed = case.config.seed
        self._length = case.config.training.steps * case.config.training.batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Example:
        source, record = self._sampler.draw(position)
        return self._builder.build(
            self._sources[source][record], np.random.default_rng((self._seed, position)))


class WholeAnswers:
    """Batches as Trainer takes them: answers to their last token, all else masked in labels."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        # Our collator leaves out the last token of an answer: one more is put there for it.
        inputs = self._collator([
            replace(one, answer=np.append(one.answer, 0)) for one in examples]).inputs
        labels = torch.full_like(inputs['input_ids'], -100)
        for row, one in enumerate(examples):
            start = one.inputs['input_ids'].shape[1]
            labels[row, start:start + len(one.answer)] = torch.from_numpy(one.answer)
        return {**inputs, 'labels': labels}


def tiny(work: Path, steps: int) -> Case:
    """Return full tuning of the shipped checkpoint."""
    config = make_config({'method': 'full'}, steps, batch_size=16)
    parts = open_parts(config, work / 'sources')
    with accelerating(config) as accelerator:
        model = load_trainable(config, parts, accelerator)
    return Case(config=config, parts=parts, model=model, builder=builder_of(config, parts),
                collator=collator_of(parts, model))


def paligemma(work: Path, steps: int) -> Case:
    """Return LoRA of a random PaliGemma with its real vocabulary and a few narrow layers."""
    config = make_config({'method': 'lora', 'rank': 8}, steps, batch_size=2)
    parts = open_parts(config, work / 'sources')
    processor = parts.language.processor
    processor.patch_size = _PATCH
    torch.manual_seed(config.seed)
    model = PaliGemmaForConditionalGeneration(PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3,
            image_size=128, patch_size=_PATCH, vision_use_head=False),
        text_config=GemmaConfig(
            vocab_size=257152, hidden_size=512, intermediate_size=2048, num_hidden_layers=6,
            num_attention_heads=4, num_key_value_heads=1, head_dim=128),
        image_token_index=processor.image_token_id, projection_dim=512)).to(torch.bfloat16)
    model = make_trainable(model, config.tuning).train()
    return Case(config=config, parts=parts, model=model,
                builder=PrefixTypes(builder_of(config, parts)),
                collator=collator_of(parts, model))


class PrefixTypes:
    """Adds what PaliGemma's own processor says of a prompt: that it is read in both directions."""

    def __init__(self, builder: ExampleBuilder) -> None:
        self._builder = builder

    def build(self, *args: Any) -> Example:
        """Build an example with token_type_ids."""
        example = self._builder.build(*args)
        types = torch.zeros_like(example.inputs['input_ids'])
        return replace(example, inputs={**example.inputs, 'token_type_ids': types})


def make_config(tuning: dict[str, Any], steps: int, *, batch_size: int) -> FinetuneConfig:
    """Return the configuration of one round: a step to start with, then the timed ones."""
    scenes = {'first': 500000, 'scenes': 40, 'frames': 10}
    return parse_config({
        'recipe': 'finetune', 'name': 'benchmark', 'base': str(BASE),
        'sources': {
            'demonstrations': {'kind': 'simulator', 'scenes': scenes},
            'questions': {'kind': 'simulator_questions', 'scenes': scenes}},
        'mixture': {'probabilities': {'demonstrations': 0.5, 'questions': 0.5}},
        'tuning': tuning,
        'augmentation': {'brightness': 0.1, 'contrast': 0.1, 'saturation': 0.1, 'hue': 0.01},
        'training': {'steps': steps + 1, 'batch_size': batch_size, 'lr': 1e-4, 'final_lr': 1e-4,
                     'workers': 0, 'save_every': steps + 1},
        'validation': {'share': 0.0},
    }, Path('benchmark'))


def show(name: str, result: dict[str, Any]) -> None:
    """Print a table and the ratio."""
    table = Table(title=f'{name}: {result["parameters"] / 1e6:.1f} M parameters, '
                        f'{result["trained"] / 1e6:.2f} M trained ({result["tuning"]}), '
                        f'batches of {result["batch_size"]} x {result["tokens"]} tokens')
    for title in ('', 'samples/s', 'p5', 'p95', 'CPU ms/sample', 'first loss', 'last loss'):
        table.add_column(title, justify='right' if title else 'left')
    for way, speeds in result['samples_per_s'].items():
        losses = result['losses'][way]
        table.add_row(way, *(f'{np.percentile(speeds, p):.2f}' for p in (50, *_SPREAD)),
                      f'{result["cpu_ms"][way]:.2f}', f'{losses["first"]:.5f}',
                      f'{losses["last"]:.5f}')
    console = Console()
    console.print(table)
    spread = ' to '.join(f'{value:.3f}' for value in result['paired_ratios'].values())
    console.print(
        f'ratio {result["ratio_of_medians"]:.3f} of medians with {result["compared_with"]}, '
        f'target {result["target"]}; pairs {spread} (p5 to p95), median '
        f'{result["median_of_paired_ratios"]:.3f}')
    waiting = result['waiting_share']
    console.print(f'waiting for data {waiting["median"]:.1%}, in the worst round '
                  f'{waiting["largest"]:.1%}, target below {LARGEST_WAITING_SHARE:.0%}; load '
                  f'{result["load_average"][0]:.1f} to {result["load_average"][1]:.1f}')


if __name__ == '__main__':
    typer.run(main)
