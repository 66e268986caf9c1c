"""
One tuning run, from configuration to policy folder.

Started again in the same work folder it goes on where it was. Under `accelerate launch` every
process calls `run`; the first one writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate import DistributedDataParallelKwargs
from accelerate import DistributedType
from accelerate.state import AcceleratorState
import torch
from torch import nn

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.training.finetune.augment import Augmenter
from vla_policy_node.training.finetune.base import load_model
from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.distributed import gather_weights
from vla_policy_node.training.finetune.examples import ExampleBuilder
from vla_policy_node.training.finetune.folder import provenance_of
from vla_policy_node.training.finetune.folder import save_policy
from vla_policy_node.training.finetune.held_out import HeldOut
from vla_policy_node.training.finetune.kernels import use_cpu_kernels
from vla_policy_node.training.finetune.model_parts import count_parameters
from vla_policy_node.training.finetune.objective import AnswerModel
from vla_policy_node.training.finetune.parts import open_parts
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.state import StateFolder
from vla_policy_node.training.finetune.steps import Stepper
from vla_policy_node.training.finetune.stream import ExampleStream
from vla_policy_node.training.finetune.stream import StreamPlan
from vla_policy_node.training.finetune.training import Trainer
from vla_policy_node.training.finetune.tuning import make_trainable
from vla_policy_node.training.journal import Journal

CACHE = 'sources'


def run(config: FinetuneConfig, work: Path, out: Path, journal: Journal) -> None:
    """
    Train and write the policy folder `out`.

    work: states, and what sources make once. Raises ValueError with one line about what cannot
    be used; a loss that is not finite is one of them.
    """
    with accelerating(config) as accelerator:
        # What sources make once is made by one process and found by the others.
        with accelerator.local_main_process_first():
            parts = open_parts(config, work / CACHE)
        train(accelerator, config, parts, work, out, journal)


def train(
    accelerator: Accelerator, config: FinetuneConfig, parts: Parts, work: Path, out: Path,
    journal: Journal,
) -> None:
    """Do the same with parts that are open already."""
    model = load_trainable(config, parts, accelerator)
    if accelerator.device.type == 'cpu':
        use_cpu_kernels(model)
    builder = builder_of(config, parts)
    plan = StreamPlan(
        batch_size=config.training.batch_size, accumulation=config.training.accumulation,
        process=accelerator.process_index, processes=accelerator.num_processes)
    if accelerator.is_main_process:
        journal.write(_mixture_record(config, parts, plan, model))
    answer_model = AnswerModel(
        model, parts.language.actions.bin_token_ids, config.training.label_sigma_bins)
    collator = collator_of(parts, model)
    prepared, optimiser = accelerator.prepare(answer_model, optimiser_of(config, answer_model))
    trainer = Trainer(
        config, accelerator, prepared, optimiser,
        Stepper(accelerator, prepared, optimiser, collator, list(parts.train),
                clip_norm=config.training.clip_norm, seed=config.seed),
        StateFolder(work / 'states'), journal.write,
        _measure(config, parts, builder, collator, accelerator, prepared, work))
    trainer.resume()
    trainer.train(ExampleStream(
        list(parts.train.values()), parts.sampler(config.seed), builder, plan,
        seed=config.seed, workers=config.training.workers))
    weights = gather_weights(accelerator, prepared)
    if accelerator.is_main_process:
        minutes = trainer.progress.seconds / 60
        save_policy(out, config, parts, weights, provenance_of(config, parts, minutes))
        journal.write({'kind': 'event', 'name': 'finished', 'detail': f'policy in {out}',
                       'step': trainer.progress.step})


def load_trainable(
    config: FinetuneConfig, parts: Parts, accelerator: Accelerator
) -> nn.Module:
    """Load the base where it is trained, with what is trained marked so."""
    sharded = accelerator.distributed_type == DistributedType.FSDP
    method = config.tuning.method
    if method == 'qlora' and sharded:
        raise ValueError('tuning.method: expected full or lora under FSDP, found qlora; 4-bit '
                         'weights are not sharded here, use DDP')
    # What the optimiser changes is float32; so is all that FSDP shards, which takes one dtype.
    whole = config.training.precision == 'fp32' or method == 'full' or sharded
    torch.manual_seed(config.seed)  # of the adapters' first weights
    model = load_model(
        parts.folder, parts.language, dtype=torch.float32 if whole else torch.bfloat16,
        device='cpu' if sharded else str(accelerator.device),
        quantization='nf4' if method == 'qlora' else 'none')
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable({'use_reentrant': False})
    return make_trainable(model, config.tuning, parts.language.new_ids).train()


def builder_of(config: FinetuneConfig, parts: Parts) -> ExampleBuilder:
    """Return what makes examples of records."""
    bf16 = config.training.precision == 'bf16'
    return ExampleBuilder(parts.language, parts.stats, Augmenter(config.augmentation),
                          torch.bfloat16 if bf16 else torch.float32)


@contextmanager
def accelerating(config: FinetuneConfig) -> Iterator[Accelerator]:
    """Give accelerate for one run; its settings live in globals that the next run sets anew."""
    # Vision towers have layers whose output is not used; DDP must be told to expect it.
    handlers = [DistributedDataParallelKwargs(
        find_unused_parameters='vision' not in config.tuning.frozen)]
    mixed = 'bf16' if config.training.precision == 'bf16' else 'no'
    accelerator = Accelerator(mixed_precision=mixed, kwargs_handlers=handlers)
    try:
        yield accelerator
    finally:
        AcceleratorState._reset_state(reset_partial_state=False)


def optimiser_of(config: FinetuneConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return what changes the weights that are trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trained, lr=config.training.lr, betas=(0.9, 0.95),
        weight_decay=config.training.weight_decay, fused=True)


def collator_of(parts: Parts, model: nn.Module) -> Collator:
    """Return what makes batches of examples for this model."""
    tokenizer = parts.language.processor.tokenizer
    pad_id = tokenizer.pad_token_id
    return Collator(pad_id=tokenizer.eos_token_id or 0 if pad_id is None else pad_id,
                    model_type=model.config.model_type)


def _measure(
    config: FinetuneConfig, parts: Parts, builder: ExampleBuilder, collator: Collator,
    accelerator: Accelerator, model: nn.Module, work: Path,
) -> Any:
    """Return the function that measures, or None where nothing is held out."""
    held_out = HeldOut(config, parts, builder, collator)
    if not held_out.examples:
        return None
    space = ActionSpace(stats=parts.stats, **parts.language.action_space.model_dump())
    return lambda step: held_out.measure(step, accelerator, model, space, work)


def _mixture_record(
    config: FinetuneConfig, parts: Parts, plan: StreamPlan, model: nn.Module
) -> dict[str, Any]:
    rows = [asdict(row) for row in parts.mixture(config.training.steps * plan.per_step)]
    return {'kind': 'mixture', 'sources': rows, 'parameters': {
        part: {'trained': trained, 'all': total}
        for part, (trained, total) in count_parameters(model).items()}}
