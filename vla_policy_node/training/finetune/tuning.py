"""Which weights are trained: all, or low-rank adapters beside frozen ones (LoRA, QLoRA)."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
import warnings

from peft import get_peft_model
from peft import LoraConfig
from peft import PeftModel
import torch
from torch import nn

from vla_policy_node.training.finetune.config import FinetuneConfigError
from vla_policy_node.training.finetune.config import TuningConfig
from vla_policy_node.training.finetune.model_parts import linear_layers
from vla_policy_node.training.finetune.model_parts import part_of_parameters


def make_trainable(
    model: nn.Module, tuning: TuningConfig, new_ids: Sequence[int] = ()
) -> nn.Module:
    """
    Freeze, add adapters, and return the model: the same one, or peft's around it.

    new_ids: tokens without a meaning yet; their rows are trained even where the other embeddings
    are frozen. Adapters and whatever else is trained are float32.
    """
    if tuning.method == 'full':
        return _freeze(model, tuning, new_ids)
    parts = [p for p in ('language', 'vision', 'projector') if p not in tuning.frozen]
    config = LoraConfig(
        r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout,
        target_modules=linear_layers(model, parts),
        trainable_token_indices=_new_rows(model, tuning, new_ids))
    trained = [] if 'embeddings' in tuning.frozen else [model.get_input_embeddings()]
    with _without_warnings():
        adapted = get_peft_model(model, config)
    for table in trained:
        table.to(torch.float32).requires_grad_(True)
    return adapted


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return {name: tensor} of what is trained; copies on the CPU."""
    return {name: parameter.detach().to('cpu', copy=True)
            for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def set_trained_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put back what trained_weights returned, into a model that was made in the same way."""
    for name, value in weights.items():
        model.get_parameter(name).copy_(value)


def merged(model: nn.Module) -> nn.Module:
    """Return the model of transformers with its adapters added into its weights."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """
    Switch dropout off for a while.

    4-bit layers stay as they are in training: evaluated on a CPU they would repack their weights
    into a form that has no backward pass.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    for module in model.modules():
        if hasattr(getattr(module, 'weight', None), 'quant_state'):
            module.training = True
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _freeze(model: nn.Module, tuning: TuningConfig, new_ids: Sequence[int]) -> nn.Module:
    if new_ids and 'embeddings' in tuning.frozen:
        raise FinetuneConfigError(
            'tuning.freeze: embeddings must be trained in full tuning where the action tokens are '
            'new to the base; leave them out, or use lora, which trains only the new rows')
    for name, part in part_of_parameters(model).items():
        model.get_parameter(name).requires_grad_(part not in tuning.frozen)
    return model


def _new_rows(
    model: nn.Module, tuning: TuningConfig, new_ids: Sequence[int]
) -> dict[str, list[int]] | None:
    """Return the rows of embeddings and head to train alone, by the tables' names."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embeddings] if 'embeddings' in tuning.frozen else []
    if head.weight is not embeddings.weight:
        tables.append(head)  # peft keeps a tied head in step by itself
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(table)]: list(new_ids) for table in tables} if new_ids and tables else None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep peft's warnings about what transformers renamed from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        warnings.simplefilter('ignore', UserWarning)
        yield
