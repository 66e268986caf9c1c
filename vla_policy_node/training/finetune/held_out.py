"""The held-out examples of a run, and the validation records made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate import DistributedType
import numpy as np
from torch import nn

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.examples import ExampleBuilder
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.samples import Speaker
from vla_policy_node.training.finetune.stream import Drawn
from vla_policy_node.training.finetune.tally import Tally
from vla_policy_node.training.finetune.validation import measure
from vla_policy_node.training.pictures import write_samples
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import Source


class HeldOut:
    """
    A fixed choice of held-out records, as execution would see them.

    examples: at most validation.samples of each source; corrupt records are left out.
    """

    def __init__(
        self, config: FinetuneConfig, parts: Parts, builder: ExampleBuilder, collator: Collator
    ) -> None:
        self._config = config
        self._parts = parts
        self._builder = builder
        self._collator = collator
        wanted = config.validation
        chosen = [_choose(source, builder, wanted.samples, config.seed)
                  for source in parts.held_out.values() if len(source)]
        self.examples = [drawn for part in chosen for drawn, _ in part]
        self._shown = _in_turns([[(source, index) for _, (source, index) in part]
                                 for part in chosen])[:wanted.pictures]

    def measure(
        self, step: int, accelerator: Accelerator, model: nn.Module, space: ActionSpace,
        work: Path,
    ) -> dict[str, Any]:
        """Return a validation record without kind and step; writes pictures below `work`."""
        tally = Tally(self._parts.language.actions, self._parts.majority)
        figures: dict[str, Any] = measure(
            model, self.examples, tally, self._collator, accelerator,
            self._config.training.batch_size)
        # A single process cannot generate from a model whose weights are spread over several.
        if accelerator.is_main_process and accelerator.distributed_type != DistributedType.FSDP:
            inner = accelerator.unwrap_model(model).model
            figures['samples'] = write_samples(work, step, self._samples(inner, space))
        accelerator.wait_for_everyone()
        return figures

    def _samples(self, model: nn.Module, space: ActionSpace) -> list[Any]:
        tokenizer = self._parts.language.processor.tokenizer
        speaker = Speaker(model, self._parts.language.actions, space, tokenizer,
                          self._parts.language.eos_id)
        samples = []
        for source, index in self._shown:
            record = source[index]
            samples.append(speaker.sample(record, self._builder.build(record)))
        return samples


def _choose(
    source: Source, builder: ExampleBuilder, count: int, seed: int
) -> list[tuple[Drawn, tuple[Source, int]]]:
    """Return up to `count` examples of a source with where each comes from."""
    found = []
    for index in np.random.default_rng(seed).permutation(len(source))[:count].tolist():
        try:
            example = builder.build(source[index])
        except RecordError:
            continue
        found.append((Drawn(source.name, example), (source, index)))
    return found


def _in_turns(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the first of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [one[place] for place in range(longest) for one in lists if place < len(one)]
