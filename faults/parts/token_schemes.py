"""
Ways to write an action in tokens, each with a reader of its own that tells what may come next.

The readers share nothing with the automaton of the product: one knows ranges of ids, the other
spells decimal numbers.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.action_tokenizer import OverwrittenTokens
from vla_policy_node.action_tokenizer import TextNumberTokens
from vla_policy_node.token_automaton import FreeText

VOCABULARY = 320
_FIRST_BIN = 40
_DIGITS = range(10, 20)
_COMMA = 20
_WORDS = range(22, 36)
_END = 2
_MOST_WORDS = 5
_NUMBERS = frozenset(str(number) for number in range(256))
_STARTS = frozenset(text[:length] for text in _NUMBERS for length in range(len(text) + 1))

# (tokens so far) -> the ids that may come next; empty where the action is complete.
Legal = Callable[[Sequence[int]], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """
    A tokenizer of the product, and what may come next by our own reading.

    n_plan: most tokens before the action.
    """

    name: str
    tokenizer: ActionTokenizer
    legal: Legal
    one_token_per_bin: bool = True
    n_plan: int = 0


def schemes() -> tuple[Scheme, ...]:
    """Return the schemes."""
    added = range(_FIRST_BIN, _FIRST_BIN + 256)
    overwritten = range(VOCABULARY - 264, VOCABULARY - 8)
    digits = [[_DIGITS[int(digit)] for digit in str(number)] for number in range(256)]
    text = FreeText(words=_WORDS, end=(_END,), max_tokens=_MOST_WORDS)
    return (
        Scheme(name='added', tokenizer=AddedTokens(first_id=_FIRST_BIN), legal=_bins(added, 7)),
        Scheme(name='overwritten', tokenizer=OverwrittenTokens(vocab_size=VOCABULARY - 8),
               legal=_bins(overwritten, 7)),
        Scheme(name='digits', one_token_per_bin=False, legal=_digits,
               tokenizer=TextNumberTokens(number_token_ids=digits, separator_ids=[_COMMA])),
        Scheme(name='plan', legal=_planned(added), n_plan=_MOST_WORDS + 1,
               tokenizer=AddedTokens(first_id=_FIRST_BIN, plan_text=text)),
    )


def _bins(ids: range, count: int) -> Legal:
    return lambda tokens: ids if len(tokens) < count else ()


def _digits(tokens: Sequence[int]) -> Sequence[int]:
    numbers = ''.join(',' if token == _COMMA else str(token - _DIGITS[0]) for token in tokens)
    *done, begun = numbers.split(',')
    if len(done) == 7:
        return ()
    after = [_DIGITS[digit] for digit in range(10) if f'{begun}{digit}' in _STARTS]
    return [*after, _COMMA] if begun in _NUMBERS else after


def _planned(bins: range) -> Legal:
    def legal(tokens: Sequence[int]) -> Sequence[int]:
        if _END in tokens:
            return bins if len(tokens) - tokens.index(_END) <= 7 else ()
        return (_END,) if len(tokens) == _MOST_WORDS else (_END, *_WORDS)
    return legal
