"""Finds or makes the 256 action tokens of a scheme in a model's vocabulary."""

from typing import Any

import torch
from torch import nn

from vla_policy_node.action_bins import N_BINS
from vla_policy_node.training.finetune.config import FinetuneConfigError

ADDED_TOKENS = tuple(f'<action_{number}>' for number in range(N_BINS))


def place_scheme(scheme: str, tokenizer: Any, separator: str) -> dict[str, Any]:
    """
    Return the field of vla_config's tokenizer section that says where the bins live.

    Scheme 'added' adds its tokens to the tokenizer unless it has them. Raises
    FinetuneConfigError where the vocabulary cannot hold the scheme.
    """
    if scheme == 'text':
        return {'separator': separator}
    if scheme == 'added':
        return {'first_id': _added_first_id(tokenizer)}
    size = tokenizer.vocab_size
    _check_last_ids(scheme, tokenizer, size)
    return {'vocab_size': size} if scheme == 'overwritten' else {'first_id': size - N_BINS}


def fit_embeddings(model: nn.Module, tokenizer: Any) -> None:
    """Give every token of the tokenizer a row in embeddings and head."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        # Rows are filled below; sampling them from a fitted normal takes minutes in large models.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


@torch.no_grad()
def start_rows_at_mean(model: nn.Module, ids: list[int]) -> None:
    """Set the rows of tokens without a meaning to the mean of all others, in both tables."""
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        others = torch.ones(table.weight.shape[0], dtype=torch.bool, device=table.weight.device)
        others[ids] = False
        table.weight[ids] = table.weight[others].float().mean(dim=0).to(table.weight.dtype)


def _added_first_id(tokenizer: Any) -> int:
    tokenizer.add_tokens(list(ADDED_TOKENS), special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
    if ids != list(range(ids[0], ids[0] + N_BINS)):
        raise FinetuneConfigError(
            f'action.scheme: expected {ADDED_TOKENS[0]}..{ADDED_TOKENS[-1]} at consecutive ids, '
            'found them scattered in the vocabulary of the base; use scheme text or overwritten')
    return ids[0]


def _check_last_ids(scheme: str, tokenizer: Any, size: int) -> None:
    if size < 2 * N_BINS:
        raise FinetuneConfigError(
            f'action.scheme: {scheme} takes the last {N_BINS} ids of a vocabulary of at least '
            f'{2 * N_BINS}, found {size}; use scheme added or text')
    taken = [i for i in tokenizer.all_special_ids if size - N_BINS <= i < size]
    if taken:
        raise FinetuneConfigError(
            f'action.scheme: {scheme} takes ids {size - N_BINS}..{size - 1} of the base, found '
            f'{tokenizer.convert_ids_to_tokens(taken[0])!r} at id {taken[0]}; use scheme added '
            'or text')
