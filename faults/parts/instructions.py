"""
Instructions that are none, or that want to be more than one.

An instruction is either refused by the project's own error, or it stands in its place in the
prompt and nothing else in the prompt has changed: its lines, its labels, its special tokens.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from faults.parts.bad_instructions import draw
from faults.parts.bad_instructions import Given
from faults.parts.poisoned_weights import SHIPPED
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node import prompts
from vla_policy_node.prompts import InstructionError
from vla_policy_node.prompts import TEMPLATES

_FULL = {'prompts': 100_000, 'tokens': 20_000}
_PER_EPISODE = 20
_LONGEST = 512
_PLAIN = 'pick up the red block'
_OPENVLA = Path(__file__).resolve().parents[2] / 'test' / 'data' / 'openvla_tiny'

# (template, instruction) -> prompt, or InstructionError.
Build = Callable[[Any, str], str]


@contextmanager
def cases(
    *, short: bool, scratch: Path, build: Build | None = None, ask: Build | None = None,
) -> Iterator[Sequence[Case]]:
    """Yield the cases; `build` and `ask` in place of the product's for actions and questions."""
    build = build or prompts.build_action_prompt
    ask = ask or prompts.build_question_prompt
    divisor = 100 if short else 1
    yield [Case(name='prompts', injections=_FULL['prompts'] // divisor,
                play=partial(_prompts, build, ask)),
           Case(name='tokens', injections=_FULL['tokens'] // divisor,
                play=partial(_tokens, build, _tokenizers(scratch)))]


def _prompts(
    build: Build, ask: Build, number: int, rng: np.random.Generator, tally: Tally,
) -> None:
    """Put instructions and questions into every family's template."""
    names = tuple(TEMPLATES)
    for _ in range(_PER_EPISODE):
        name = names[rng.integers(len(names))]
        template = TEMPLATES[name]
        given = draw(rng, template.action, '{instruction}')
        prompt, error = _try(build, template, given.text)
        trouble = _fault(given, prompt, error, template.action.split('{instruction}'),
                         template.lowercase, labels=given.labels)
        if trouble is None:
            answer, refusal = _try(ask, template, given.text)
            # A question may quote labels, as those with several choices do.
            trouble = _fault(given, answer, refusal, template.question.split('{question}'),
                             template.lowercase, labels=())
        tally.judge(trouble, f'{name}, {given.kind}: {given.text!r}' if trouble else '',
                    type(error).__name__ if error else '')


def _tokens(
    build: Build, tokenizers: Sequence[tuple[str, Any]], number: int, rng: np.random.Generator,
    tally: Tally,
) -> None:
    """Let real tokenizers read the prompts: their special tokens are those of the template."""
    for _ in range(_PER_EPISODE):
        name, tokenizer = tokenizers[rng.integers(len(tokenizers))]
        template = TEMPLATES[name]
        given = draw(rng, template.action, '{instruction}')
        prompt, error = _try(build, template, given.text)
        trouble = None if error is None else _error_fault(given, error)
        if prompt is not None:
            found = _special_ids(tokenizer, prompt)
            wanted = _special_ids(tokenizer, build(template, _PLAIN))
            if found != wanted:
                trouble = f'special tokens {found} instead of {wanted}'
        tally.judge(trouble, f'{name}, {given.kind}: {given.text!r}' if trouble else '',
                    type(error).__name__ if error else '')


def _try(build: Build, template: Any, text: str) -> tuple[str | None, Exception | None]:
    try:
        return build(template, text), None
    except InstructionError as error:
        return None, error


def _fault(
    given: Given, prompt: str | None, error: Exception | None, around: Sequence[str],
    lowercase: bool, labels: Sequence[str],
) -> str | None:
    """Return what is wrong with a prompt, or with its refusal."""
    if error is not None:
        return _error_fault(given, error)
    if given.must_be_refused:
        return 'expected a refusal'
    before, after = around
    said = given.text.strip()
    if prompt != before + (said.lower() if lowercase else said) + after:
        return f'prompt {prompt!r}'
    if len(said) > _LONGEST or prompt.count('\n') != (before + after).count('\n'):
        return 'the instruction is too long, or of several lines'
    for label in labels:
        if prompt.count(label) != (before + after).count(label):
            return f'the prompt has another label {label!r}'
    return None


def _error_fault(given: Given, error: Exception) -> str | None:
    text = str(error)
    if given.must_be_kept:
        return f'an ordinary instruction was refused: {text}'
    if not text or '\n' in text or len(text) > 300 or not text.isprintable():
        return f'expected one short printable line, found {text!r}'
    return None


def _special_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Return the ids in a prompt that stand for no text."""
    # An unknown word is text.
    special = set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
    return [number for number in tokenizer(prompt)['input_ids'] if number in special]


def _tokenizers(scratch: Path) -> list[tuple[str, Any]]:
    """Return tokenizers with the templates that their models were tuned with."""
    folder = scratch / 'llama'
    folder.mkdir()
    packed = (_OPENVLA / 'tokenizer.json.gz').read_bytes()
    (folder / 'tokenizer.json').write_bytes(gzip.decompress(packed))
    for name in ('tokenizer_config.json', 'special_tokens_map.json'):
        (folder / name).write_text((_OPENVLA / name).read_text())
    shipped = PreTrainedTokenizerFast.from_pretrained(SHIPPED, local_files_only=True)
    llama = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    wanted = json.loads((SHIPPED / 'vla_config.json').read_text())['prompt']['action']
    family = next(name for name, each in TEMPLATES.items() if each.action == wanted)
    return [(family, shipped), ('openvla', llama), ('openvla_v01', llama), ('rt2', llama)]
