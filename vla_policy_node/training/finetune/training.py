"""
The loop: steps, measuring, saving, stopping early; with accelerate, on one process or many.

Knows nothing of where records come from or of how the final folder is written.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import errno
import time
from typing import Any

from accelerate import Accelerator
import torch
from torch import nn

from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.distributed import gather_state
from vla_policy_node.training.finetune.distributed import put_back_state
from vla_policy_node.training.finetune.state import StateFolder
from vla_policy_node.training.finetune.steps import Stepper
from vla_policy_node.training.finetune.stream import ExampleStream
from vla_policy_node.training.finetune.stream import Step
from vla_policy_node.training.loop import learning_rates

Write = Callable[[Mapping[str, Any]], None]
Measure = Callable[[int], Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands, beside its weights; saved with them."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best_loss: float = float('inf')
    without_best: int = 0
    ended: bool = False


class Trainer:
    """
    Trains a prepared model.

    write: takes the records of the journal, called in the first process only. measure: step ->
    a validation record without kind and step, the same in every process; None where nothing is
    held out.
    """

    def __init__(
        self, config: FinetuneConfig, accelerator: Accelerator, model: nn.Module,
        optimiser: torch.optim.Optimizer, stepper: Stepper, states: StateFolder, write: Write,
        measure: Measure | None,
    ) -> None:
        self._config = config
        self._accelerator = accelerator
        self._model = model
        self._optimiser = optimiser
        self._stepper = stepper
        self._states = states
        self._write = write if accelerator.is_main_process else lambda record: None
        self._measure = measure
        self.progress = Progress()

    def resume(self) -> None:
        """Go on from the newest state, if there is one; ValueError if it is of another run."""
        state = self._states.load()
        if state is None:
            return
        if state['config'] != settled(self._config):
            raise ValueError(
                'expected the state of this run in the work folder, found one of another '
                'configuration (only save_every, workers, validation.every, .samples, .patience '
                'and .pictures may change); remove it or choose another --work')
        put_back_state(self._accelerator, self._model, self._optimiser, state['weights'],
                       state['moments'])
        self.progress = Progress(**state['progress'])
        self._event('resumed', f'from step {self.progress.step}')

    def train(self, stream: ExampleStream) -> None:
        """Take all steps that are left."""
        settings = self._config.training
        rates = list(learning_rates(
            settings.steps, settings.warmup, settings.lr, settings.final_lr))
        end = self.progress.step if self.progress.ended else settings.steps
        for waited, step in _timed(stream.steps(self.progress.step, end)):
            started = time.perf_counter()
            lr = rates[self.progress.step]
            loss = self._stepper(self.progress.step + 1, step.batches, lr)
            self._log(step, loss, lr, waited, time.perf_counter() - started)
            last = self.progress.step == settings.steps
            self.progress.ended = self._validate(last) or last
            if self.progress.step % settings.save_every == 0 or self.progress.ended:
                self._save()
            if self.progress.ended:
                break

    def _log(
        self, step: Step, loss: Mapping[str, float], lr: float, waited: float, worked: float
    ) -> None:
        seconds = waited + worked
        self._note_faults(step.faults)
        self.progress.step += 1
        self.progress.seconds += seconds
        records = sum(map(len, step.batches)) * self._accelerator.num_processes
        self._write({
            'kind': 'train', 'step': self.progress.step, 'of': self._config.training.steps,
            'minutes': round(self.progress.seconds / 60, 3),
            'samples_per_s': round(records / seconds, 3),
            'waiting_share': round(waited / seconds, 4), 'lr': lr, 'loss': dict(loss),
            'skipped': self.progress.skipped})

    def _note_faults(self, faults: Sequence[str]) -> None:
        for fault in faults:
            self.progress.skipped += 1
            self._event('corrupt_record', fault)

    def _validate(self, last: bool) -> bool:
        """Measure if it is time to; return whether training shall end."""
        wanted = self._config.validation
        if self._measure is None or (self.progress.step % wanted.every and not last):
            return False
        started = time.perf_counter()
        figures = self._measure(self.progress.step)
        self.progress.seconds += time.perf_counter() - started
        self._write({'kind': 'validation', 'step': self.progress.step, **figures})
        loss = figures['loss']['all']
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.without_best = loss, 0
            return False
        self.progress.without_best += 1
        stop = wanted.patience is not None and self.progress.without_best >= wanted.patience
        if stop and not last:
            self._event('early_stop', f'{wanted.patience} measurements without a loss below '
                                      f'{self.progress.best_loss:.4g}')
        return stop

    def _save(self) -> None:
        """Save the state; a full disk is noted, and training goes on with the older state."""
        weights, moments = gather_state(self._accelerator, self._model, self._optimiser)
        if self._accelerator.is_main_process:
            try:
                self._states.save(self.progress.step, {
                    'config': settled(self._config), 'weights': weights, 'moments': moments,
                    'progress': _as_dict(self.progress)})
            except OSError as error:
                name = 'disk_full' if error.errno in (errno.ENOSPC, errno.EDQUOT) else 'checkpoint'
                self._event(name, f'the state was not saved: {error}')
            else:
                self._event('checkpoint', f'state of step {self.progress.step} saved')
        self._accelerator.wait_for_everyone()

    def _event(self, name: str, detail: str) -> None:
        self._write({'kind': 'event', 'name': name, 'detail': detail, 'step': self.progress.step})


def settled(config: FinetuneConfig) -> str:
    """Return what must not change between a run and its resumption, as JSON."""
    return config.model_dump_json(exclude={
        'training': {'save_every', 'workers'},
        'validation': {'every', 'samples', 'patience', 'pictures'}})


def _as_dict(progress: Progress) -> dict[str, float]:
    return {name: getattr(progress, name) for name in Progress.__dataclass_fields__}


def _timed(steps: Iterator[Step]) -> Iterator[tuple[float, Step]]:
    """Yield each step with the seconds it was waited for."""
    while True:
        started = time.perf_counter()
        step = next(steps, None)
        if step is None:
            return
        yield time.perf_counter() - started, step
