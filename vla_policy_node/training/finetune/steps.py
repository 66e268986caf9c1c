"""
One step of training: batches in, losses out, weights changed; on one process or many.

The loss is the mean over all answer tokens of the step, whatever batches and processes they are
in, so accumulation and the number of processes change the speed and nothing else.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import nullcontext
import math

from accelerate import Accelerator
import numpy as np
import torch
from torch import nn

from vla_policy_node.training.finetune.collate import Batch
from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.stream import Drawn


class NonFiniteLossError(ValueError):
    """The loss is not a number; training cannot go on."""


class Stepper:
    """
    Takes steps with a prepared model and optimiser.

    model: an AnswerModel as accelerate prepared it. sources: all names, in an order that every
    process shares.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimiser: torch.optim.Optimizer,
        collator: Collator, sources: Sequence[str], *, clip_norm: float, seed: int,
    ) -> None:
        self._accelerator = accelerator
        self._model = model
        # All of them, frozen ones too: only then accelerate adds up the norms of FSDP's shards.
        self._parameters = list(model.parameters())
        self._optimiser = optimiser
        self._collator = collator
        self._sources = tuple(sources)
        self._clip_norm = clip_norm
        self._seed = seed

    def __call__(self, step: int, drawn: Sequence[Sequence[Drawn]], lr: float) -> dict[str, float]:
        """
        Update the weights; return the loss of 'all' and of each source that was seen.

        Raises NonFiniteLossError in every process, weights unchanged.
        """
        self._begin(step, lr)
        batches = [self._collator([one.example for one in part]).to(self._accelerator.device)
                   for part in drawn]
        tokens = sum(len(batch.labels) for batch in batches)
        total = int(self._accelerator.reduce(
            torch.tensor(tokens, device=self._accelerator.device), 'sum'))
        losses = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self._accelerator.no_sync(self._model):
                losses.append(self._backward(batch, total))
        figures = self._figures(torch.cat(losses), [one for part in drawn for one in part])
        self._update(step, figures)
        return figures

    def _begin(self, step: int, lr: float) -> None:
        # Dropout of a step depends on nothing but the seed, the step and the process: a resumed
        # run repeats it without any generator's state.
        place = np.random.SeedSequence((self._seed, step, self._accelerator.process_index))
        torch.manual_seed(int(place.generate_state(1)[0]))
        for group in self._optimiser.param_groups:
            group['lr'] = lr
        self._optimiser.zero_grad()

    def _backward(self, batch: Batch, total: int) -> torch.Tensor:
        losses = self._model(
            batch.inputs, batch.rows, batch.columns, batch.labels, batch.bins).losses
        # DDP and FSDP average the gradients of the processes.
        self._accelerator.backward(losses.sum() * (self._accelerator.num_processes / total))
        return losses.detach()

    def _figures(self, losses: torch.Tensor, drawn: Sequence[Drawn]) -> dict[str, float]:
        """Return the mean of the losses of 'all' and of each source that any process saw."""
        places = np.repeat([self._sources.index(one.source) for one in drawn],
                           [len(one.example.answer) for one in drawn])
        own = np.stack([
            np.bincount(places, weights=weights, minlength=len(self._sources))
            for weights in (losses.double().cpu().numpy(), None)])
        # float32: not every device adds up float64
        sums, counts = self._accelerator.reduce(
            torch.from_numpy(own).float().to(self._accelerator.device), 'sum').double().cpu()
        means = (sums / counts).tolist()
        return {'all': float(sums.sum() / counts.sum()), **{
            name: mean for name, mean, count in zip(self._sources, means, counts, strict=True)
            if count}}

    def _update(self, step: int, figures: Mapping[str, float]) -> None:
        norm = float(self._accelerator.clip_grad_norm_(self._parameters, self._clip_norm))
        odd = [name for name, loss in figures.items() if not math.isfinite(loss)]
        if odd or not math.isfinite(norm):
            what = f'a loss that is not finite in {", ".join(odd)}' if odd else (
                f'a gradient of norm {norm}')
            raise NonFiniteLossError(
                f'step {step}: expected a finite loss and gradient, found {what} (sources in this '
                f'step: {", ".join(n for n in figures if n != "all")}); the last saved state is '
                'untouched: lower training.lr, lengthen warmup, or set precision fp32, and start '
                'again')
        self._optimiser.step()
