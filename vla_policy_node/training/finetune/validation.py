"""
Measures a model on held-out records, teacher-forced.

Knows nothing of how it is trained.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
import numpy as np
from torch import nn

from vla_policy_node.training.finetune.collate import Collator
from vla_policy_node.training.finetune.stream import Drawn
from vla_policy_node.training.finetune.tally import Tally
from vla_policy_node.training.finetune.tuning import evaluating


def measure(
    model: nn.Module, held_out: Sequence[Drawn], tally: Tally, collator: Collator,
    accelerator: Accelerator, batch_size: int,
) -> dict[str, Any]:
    """
    Return the figures of a validation record, the same in every process.

    model: an AnswerModel, wrapped or not. Every process measures its share of `held_out`.
    """
    mine = sorted(held_out[accelerator.process_index::accelerator.num_processes],
                  key=lambda drawn: drawn.example.length)
    # As many batches in every process, because FSDP gathers weights in each of them.
    rounds = -(-len(held_out) // (batch_size * accelerator.num_processes))
    with evaluating(model):
        for number in range(rounds):
            batch = mine[number * batch_size:(number + 1) * batch_size]
            _add(tally, model, batch or list(held_out[:1]), collator, accelerator, bool(batch))
    tally.sums = sum(gather_object([tally.sums]), Counter())
    return tally.figures()


def _add(
    tally: Tally, model: nn.Module, drawn: Sequence[Drawn], collator: Collator,
    accelerator: Accelerator, counts: bool,
) -> None:
    batch = collator([one.example for one in drawn]).to(accelerator.device)
    found = model(batch.inputs, batch.rows, batch.columns, batch.labels, batch.bins)
    if not counts:
        return
    ends = np.cumsum([len(one.example.answer) for one in drawn])[:-1]
    parts = [np.split(part.float().cpu().numpy(), ends) if part.is_floating_point()
             else np.split(part.cpu().numpy(), ends) for part in found]
    for one, losses, likeliest, bins in zip(drawn, *parts, strict=True):
        tally.add(one.source, one.example, losses, likeliest, bins)
