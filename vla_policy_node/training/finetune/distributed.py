"""
What is trained and the optimiser's moments, gathered from all processes and put back.

One process and DDP hold everything everywhere; FSDP holds a part in each process, so there every
process must call these functions, and the first one gets the whole.
"""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate import DistributedType
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as sharded

from vla_policy_node.training.finetune.tuning import set_trained_weights
from vla_policy_node.training.finetune.tuning import trained_weights

Weights = dict[str, torch.Tensor]


def gather_state(
    accelerator: Accelerator, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Weights, dict[str, Any]]:
    """Return trained weights by name and the optimiser's state; empty in other processes."""
    if accelerator.distributed_type == DistributedType.FSDP:
        options = sharded.StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return sharded.get_state_dict(model, _plain(optimiser), options=options)
    return trained_weights(accelerator.unwrap_model(model)), _plain(optimiser).state_dict()


def gather_weights(accelerator: Accelerator, model: nn.Module) -> Weights:
    """Return trained weights by name, on the CPU; empty in other processes of FSDP."""
    if accelerator.distributed_type == DistributedType.FSDP:
        options = sharded.StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return sharded.get_model_state_dict(model, options=options)
    return trained_weights(accelerator.unwrap_model(model))


def put_back_state(
    accelerator: Accelerator, model: nn.Module, optimiser: torch.optim.Optimizer,
    weights: Mapping[str, torch.Tensor], moments: Mapping[str, Any],
) -> None:
    """Put back what gather_state returned in the first process."""
    if accelerator.distributed_type == DistributedType.FSDP:
        sharded.set_state_dict(
            model, _plain(optimiser), model_state_dict=dict(weights),
            optim_state_dict=dict(moments),
            options=sharded.StateDictOptions(full_state_dict=True, strict=False))
        return
    set_trained_weights(accelerator.unwrap_model(model), weights)
    _plain(optimiser).load_state_dict(dict(moments))


def _plain(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser inside accelerate's."""
    return getattr(optimiser, 'optimizer', optimiser)
