"""
Adversarial logits for constrained decoding.

Every decode must give a legal action, the likeliest one where it is greedy, or say that it
failed; it must say so exactly where a legal logit is not finite. What failed never moves anything.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faults.given_model import GivenModel
from faults.given_model import prompt_inputs
from faults.parts import bad_logits
from faults.parts.decode_holds import holding_case
from faults.parts.poisoned_weights import poisoned_case
from faults.parts.token_schemes import Scheme
from faults.parts.token_schemes import schemes
from faults.parts.token_schemes import VOCABULARY
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.decoding import Decoding
from vla_policy_node.policy.types import DecodeError

_FULL = {('added', 'greedy'): 500_000, ('overwritten', 'greedy'): 100_000,
         ('added', 'expectation'): 150_000, ('added', 'sample'): 150_000,
         ('digits', 'greedy'): 50_000, ('plan', 'greedy'): 50_000}
_HOLDS, _POISONINGS = 2_000, 500
_PER_EPISODE = 50
_MOST_M, _MOST_RAD = 0.05, 0.5

SPACE = ActionSpace(
    frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.2,
    stats=NormStats(
        q01=[-_MOST_M] * 3 + [-_MOST_RAD] * 3 + [0.0],
        q99=[_MOST_M] * 3 + [_MOST_RAD] * 3 + [1.0], mask=[True] * 6 + [False]))

# (model, scheme, decoding) -> what decodes inputs.
MakeDecoder = Callable[[GivenModel, Scheme, str], Any]


def make_decoder(model: GivenModel, scheme: Scheme, decoding: str) -> ConstrainedDecoder:
    """Return the product's decoder."""
    return ConstrainedDecoder(model, scheme.tokenizer, decoding)


@contextmanager
def cases(*, short: bool, scratch: Path, make: MakeDecoder = make_decoder) -> Iterator[
        Sequence[Case]]:
    """Yield the cases."""
    torch.set_num_threads(1)  # More of them only cost on rows this short.
    by_name = {scheme.name: scheme for scheme in schemes()}
    yield [
        *(_Bench(by_name[name], decoding, make).case(injections // (1000 if short else 1))
          for (name, decoding), injections in _FULL.items()),
        holding_case(by_name['added'], SPACE, _HOLDS // (100 if short else 1)),
        poisoned_case(_POISONINGS // (50 if short else 1))]


class _Bench:
    """Decoders of one kind, each on a model that gives logits of one type."""

    def __init__(self, scheme: Scheme, decoding: str, make: MakeDecoder) -> None:
        self._scheme = scheme
        self._decoding = decoding
        self._n_rows = 7 if scheme.one_token_per_bin else bad_logits.N_ROWS
        self._n_rows += scheme.n_plan
        self._pairs = []
        for _ in bad_logits.DTYPES:
            model = GivenModel(VOCABULARY, torch.tensor(scheme.tokenizer.choice_ids))
            self._pairs.append((model, make(model, scheme, decoding)))
        self._inputs = prompt_inputs()

    def case(self, injections: int) -> Case:
        return Case(name=f'{self._scheme.name}_{self._decoding}', injections=injections,
                    play=self._play)

    def _play(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        for place in range(_PER_EPISODE):
            which = int(rng.integers(len(bad_logits.DTYPES)))
            kind, rows = bad_logits.draw(
                rng, self._n_rows, self._scheme.tokenizer.token_ids, bad_logits.DTYPES[which])
            failed, trouble = self._decode(*self._pairs[which], rows)
            tally.judge(trouble, f'decode {place}: {kind}' if trouble else '',
                        'decode error' if failed else '')

    def _decode(
        self, model: GivenModel, decoder: Any, rows: torch.Tensor,
    ) -> tuple[bool, str | None]:
        """Decode; return whether it failed, and what is wrong with that or with the action."""
        model.rows = rows
        try:
            decoding = decoder.decode(self._inputs)
        except DecodeError as error:
            wrong = None if '\n' not in str(error) else 'the error is not one line'
            if wrong is None and not self._must_fail(rows):
                wrong = f'refused where every legal logit is finite: {error}'
            return True, wrong
        return False, self._tokens_fault(decoding, rows) or _action_fault(decoding, self._scheme)

    def _must_fail(self, rows: torch.Tensor) -> bool:
        """Tell whether a legal logit that greedy reading meets is not finite."""
        scores, tokens, call = rows.double().numpy(), [], 0
        while legal := list(self._scheme.legal(tokens)):
            if len(legal) == 1:
                tokens.append(legal[0])
                continue
            found = scores[call, legal]
            if not np.isfinite(found).all():
                return True
            tokens.append(legal[int(found.argmax())])
            call += 1
        return False

    def _tokens_fault(self, decoding: Decoding, rows: torch.Tensor) -> str | None:
        tokens, call, scores = decoding.token_ids.tolist(), 0, rows.double().numpy()
        for place, token in enumerate(tokens):
            legal = self._scheme.legal(tokens[:place])
            if token not in legal:
                return f'token {place} is {token}, which is not legal'
            if len(legal) == 1:
                continue
            found = scores[call, legal[0]:legal[-1] + 1] if isinstance(legal, range) \
                else scores[call, list(legal)]
            if not np.isfinite(found).all():
                return f'token {place} was chosen among logits that are not finite'
            if self._decoding == 'greedy' and scores[call, token] != found.max():
                return f'token {place} is {token}, which is not the likeliest'
            call += 1
        if len(self._scheme.legal(tokens)):
            return f'the action ends after {len(tokens)} tokens'
        return _numbers_fault(decoding, self._decoding)


def _numbers_fault(decoding: Decoding, kind: str) -> str | None:
    chance, values = decoding.probabilities, decoding.values
    if not ((chance >= 0.0) & (chance <= 1.0 + 1e-6)).all():
        return f'probabilities {chance}'
    if kind == 'expectation' and not (np.abs(values) <= 1.0).all():
        return f'expected values {values}'
    if kind != 'expectation' and not np.isnan(values).all():
        return f'values {values} where none were asked for'
    return None


def _action_fault(decoding: Decoding, scheme: Scheme) -> str | None:
    """Return what is wrong with the motion that a legal decoding stands for."""
    try:
        chunk = build_chunk(decoding, scheme.tokenizer, SPACE, {})
    except DecodeError as error:
        return f'legal tokens gave no action: {error}'
    action = chunk.actions[0]
    low = [-_MOST_M] * 3 + [-_MOST_RAD] * 3 + [0.0]
    high = [_MOST_M] * 3 + [_MOST_RAD] * 3 + [1.0]
    inside = all(a - 1e-9 <= x <= b + 1e-9
                 for a, x, b in zip(low, action.tolist(), high, strict=True))
    return None if chunk.actions.shape == (1, 7) and inside else f'action {action.tolist()}'
