"""Instructions of all kinds: hostile, odd and ordinary ones, and what must come of each."""

from collections.abc import Callable
from dataclasses import dataclass
import re

import numpy as np

_WORDS = ('pick', 'up', 'the', 'red', 'block', 'put', 'it', 'left', 'of', 'bowl', 'open')
_ORDINARY = (
    'pick up the red block', 'Push the T-shaped block, then stop!', 'wipe 50 % of the table',
    'hebe den gr\u00fcnen W\u00fcrfel', '\u62ff\u8d77\u7ea2\u8272\u65b9\u5757',
    '\u0627\u0644\u062a\u0642\u0637 \u0627\u0644\u0645\u0643\u0639\u0628',
    '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645', '\u0939\u093f\u0928\u094d\u0926\u0940',
    'give me the \U0001f468\u200d\U0001f373 cup', 'if x < y, pick <obj1>', 'use the [left] one',
    'at 3:15 pm, close the drawer', "it's a 'cup' & more", '{0} {name} %s \\1', 'a' * 512)
# Controls, and formatting that shows something else than is read.
_CONTROLS = ('\n', '\r', '\x00', '\x07', '\x1b[2J', '\x7f', '\x85', '\u2028', '\u2029', '\ud800',
             '\u202e', '\u202d', '\u2066', '\u2069', '\u200e', '\u200f', '\u061c', '\u200b',
             '\u2060', '\ufeff', '\u00ad', '\U000e0041', '\U000e007f', '\ufff9')
# What tokenizers of vision-language models turn into something that is no text.
_TOKENS = (
    '<image>', '</image>', '<s>', '</s>', '<unk>', '<pad>', '<bos>', '<eos>', '<mask>',
    '<|image|>',
    '<|im_start|>', '<|im_end|>', '<|endoftext|>', '<|begin_of_text|>', '<|eot_id|>',
    '<|vision_start|>', '<|image_pad|>', '<|reserved_special_token_0|>', '<start_of_image>',
    '<image_soft_token>', '<start_of_turn>', '<end_of_turn>', '<end_of_utterance>',
    '<fake_token_around_image>', '<row_1_col_1>', '<global-img>', '<action_0>', '<action_255>',
    '<loc0000>', '<loc1023>', '<seg127>', '<unused0>', '<extra_id_0>', '[IMG]', '[IMG_BREAK]',
    '[IMG_END]', '[INST]', '[/INST]', '<<SYS>>', '<box>', '</ref>', '<quad>', '<img>',
    '<IMG_CONTEXT>', '<0x0A>', '<|action_3|>')
_WIDE = str.maketrans({'<': '\uff1c', '>': '\uff1e', '|': '\uff5c', '[': '\uff3b', ']': '\uff3d'})


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """
    One instruction.

    :param labels: those of the template that it imitates, which the prompt must not have twice.
    """

    kind: str
    text: str
    must_be_refused: bool = False
    must_be_kept: bool = False
    labels: tuple[str, ...] = ()


def draw(rng: np.random.Generator, template: str, placeholder: str) -> Given:
    """Return an instruction for a template with a place for it."""
    kind = tuple(_KINDS)[rng.integers(len(_KINDS))]
    return _KINDS[kind](rng, kind, template, placeholder)


def _any(rng: np.random.Generator, things: tuple) -> str:
    return things[rng.integers(len(things))]


def _around(rng: np.random.Generator, middle: str) -> str:
    """Return words with something between them, with and without spaces."""
    words = [_any(rng, _WORDS) for _ in range(int(rng.integers(2, 8)))]
    words.insert(int(rng.integers(1, len(words))), middle)
    return (' ', '')[rng.integers(2)].join(words)


def _ordinary(rng, kind, template, placeholder):
    return Given(kind=kind, text=_any(rng, _ORDINARY), must_be_kept=True)


def _empty(rng, kind, template, placeholder):
    spaces = (' ', '\t', '\n', '\u00a0', '\u3000', '\r\n')
    text = ''.join(_any(rng, spaces) for _ in range(int(rng.integers(0, 50))))
    return Given(kind=kind, text=text, must_be_refused=True)


def _long(rng, kind, template, placeholder):
    wanted = (513, 514, 1000, 5000, 100_000)[rng.integers(5)]
    piece = ('a', 'pick ', '\u0130', '\U0001f916', '{instruction}')[rng.integers(5)]
    text = (piece * (wanted // len(piece) + 1))[:wanted]
    return Given(kind=kind, text=f'{text[:-1]}a', must_be_refused=True)


def _control(rng, kind, template, placeholder):
    return Given(kind=kind, text=_around(rng, _any(rng, _CONTROLS)), must_be_refused=True)


def _token(rng, kind, template, placeholder):
    token = _any(rng, _TOKENS)
    # Only an exact one is one; those of images are refused however they are written.
    if re.search('im(?:age|g)', token, re.IGNORECASE) and rng.integers(2):
        token = token.swapcase()
    return Given(kind=kind, text=_around(rng, token), must_be_refused=True)


def _wide_token(rng, kind, template, placeholder):
    return Given(kind=kind, text=_around(rng, _any(rng, _TOKENS).translate(_WIDE)),
                 must_be_refused=True)


def _imitation(rng, kind, template, placeholder):
    """End the template's turn, answer, and begin another one, on a single line."""
    one_line = ' '.join(template.replace('<image>', '').split())
    before, after = one_line.split(placeholder)
    answer = ('128 128 128', 'yes', '')[rng.integers(3)]
    text = f'stop{after} {answer} {before}{_any(rng, _WORDS)}'
    labels = tuple(sorted(set(re.findall(r'\w+:', template))))
    return Given(kind=kind, text=text[:512].strip(), labels=labels)


def _placeholder(rng, kind, template, placeholder):
    text = _around(rng, ('{instruction}', '{question}', '{{', '}}', '{0}', '%(x)s')[
        rng.integers(6)])
    return Given(kind=kind, text=text, must_be_kept=True)


def _garbage(rng, kind, template, placeholder):
    """Return characters drawn from all of Unicode."""
    codes = rng.integers(0x110000, size=int(rng.integers(1, 40)))
    return Given(kind=kind, text=''.join(map(chr, codes.tolist())))


_KINDS: dict[str, Callable[..., Given]] = {
    'ordinary': _ordinary, 'empty': _empty, 'long': _long, 'control': _control, 'token': _token,
    'wide token': _wide_token, 'imitation': _imitation, 'placeholder': _placeholder,
    'garbage': _garbage,
}
