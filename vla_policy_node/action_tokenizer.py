"""
Actions <-> token ids, and which ids are legal next; shared by node, replay and trainer.

A sequence is: a plan (optional), the terminate flag (optional, once for the whole chunk), then
horizon x 7 action bins step by step. Nothing follows: the end-of-sequence token is the caller's
matter. The flag is written as bin 0 or 1 and only these two are legal there.

A plan has up to three parts, in this order: free text of a bounded length with its end marker;
words, one out of each of some lists; bins, a fixed number, such as the image position of the
target. Where text ends and every list are known, so a plan costs no guarantee.

One class per published token scheme; all share one automaton, so each has the same guarantees:
what encode writes is legal at every step, and whatever is legal decodes.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np

from vla_policy_node.action_bins import EVEN_BINS
from vla_policy_node.action_bins import N_BINS
from vla_policy_node.action_bins import OPENVLA_BINS
from vla_policy_node.action_bins import Quantizer
from vla_policy_node.action_bins import RT1_LEVELS
from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.token_automaton import Choice
from vla_policy_node.token_automaton import Cursor
from vla_policy_node.token_automaton import find_clash
from vla_policy_node.token_automaton import FreeText
from vla_policy_node.token_automaton import TokenAutomaton

if TYPE_CHECKING:
    from vla_policy_node.vla_config import TokenizerConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """
    One decoded sequence.

    actions: (K, 7) float64 normalised, in [-1, 1]. bins: (K, 7) int64 in 0..255. spans:
    (K, 7, 2) int64, the half-open token range that wrote each bin. terminate: False where the
    scheme has no flag. plan: values in [-1, 1], one per plan bin. plan_words: the number of the
    word in each list. plan_ids: the ids of the free text, without its end marker.
    """

    actions: np.ndarray
    bins: np.ndarray
    spans: np.ndarray
    terminate: bool
    plan: tuple[float, ...] = ()
    plan_words: tuple[int, ...] = ()
    plan_ids: tuple[int, ...] = ()


class Position(NamedTuple):
    """
    What one token is: kind 'word', 'plan', 'terminate', 'action' or 'separator'.

    index counts the words and bins of the kind; for actions divmod(index, 7) gives (step,
    dimension); for a separator it is the number of the word or bin it follows.
    """

    kind: str
    index: int


class ActionTokenizer:
    """
    Base of all schemes: words of token ids for 256 bins, and a way to cut [-1, 1].

    token_ids: (M,) int64 sorted unique, every id that can ever be legal. choice_ids: (C,) int64,
    those of them that are legal outside a free-text plan. bin_token_ids: (256,) int64, the id of
    each bin, or None where bins take several tokens. bin_values: (256,) float64, what each bin
    decodes to. sequence_length: exact number of tokens, or None where it is not always the same.
    max_length: of the longest sequence. max_error: largest round-trip error for a value in
    [-1, 1].
    """

    # Whether the bins' ids mean nothing but bins, and so cannot be words of a free-text plan.
    _bins_are_no_words = True

    def __init__(self, words: Sequence[Sequence[int]], quantizer: Quantizer, *, horizon: int = 1,
                 terminate: bool = False, plan_length: int = 0,
                 plan_words: Sequence[Sequence[Sequence[int]]] = (),
                 plan_text: FreeText | None = None, separator: Sequence[int] = ()) -> None:
        if len(words) != N_BINS:
            raise ValueError(f'action tokens: expected {N_BINS} of them, one per bin, found '
                             f'{len(words)}; check the token ids of the scheme')
        if horizon < 1 or plan_length < 0:
            raise ValueError(f'action tokens: expected horizon >= 1 and plan_length >= 0, found '
                             f'{horizon} and {plan_length}; correct the tokenizer section')
        self.horizon = horizon
        self.terminate = bool(terminate)
        self.plan_length = plan_length
        self.plan_choices = tuple(len(choices) for choices in plan_words)
        if plan_text is not None and self._bins_are_no_words:
            plan_text = plan_text.without([token for word in words for token in word])
        self.plan_text = plan_text
        self._automaton = TokenAutomaton(self._slots(words, plan_words), separator)
        self._quantizer = quantizer
        self.bin_values = quantizer.values
        self.max_error = quantizer.max_error
        self.token_ids = self._automaton.token_ids
        self.choice_ids = self._automaton.choice_ids
        self.sequence_length = self._automaton.sequence_length
        self.max_length = self._automaton.max_length
        self.bin_token_ids = _one_id_per_bin(words)

    def encode(self, actions: np.ndarray, *, terminate: bool = False, plan: Sequence[float] = (),
               plan_words: Sequence[int] = (), plan_ids: Sequence[int] = ()) -> list[int]:
        """
        Write normalised actions (K, 7), clipped to [-1, 1], as token ids.

        plan: plan_length values, clipped alike. plan_words: the number of one word out of each
        list. plan_ids: the free text, without its end marker; none is an empty plan. Raises
        ValueError on a wrong shape, a non-finite number, or a flag or plan that this tokenizer
        does not have or cannot write.
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != (self.horizon, ACTION_DIM):
            raise ValueError(f'cannot encode an action: expected shape '
                             f'{(self.horizon, ACTION_DIM)}, found {actions.shape}; give one row '
                             'per step of the horizon')
        if terminate and not self.terminate:
            raise ValueError('cannot encode an action: expected terminate=False, found True; this '
                             'tokenizer was built without the terminate flag')
        self._check_plan(plan, plan_words, plan_ids)
        bins = self._quantizer.encode(np.concatenate([np.asarray(plan, float), actions.ravel()]))
        text = [tuple(plan_ids)] * (self.plan_text is not None)
        flag = [int(terminate)] * self.terminate
        return self._automaton.write(
            [*text, *plan_words, *bins[:len(plan)], *flag, *bins[len(plan):]])

    def decode(self, token_ids: Sequence[int]) -> Decoded:
        """
        Read a complete sequence of token ids.

        Raises ValueError for every sequence that legal_next does not allow: an illegal token is
        never turned into a motion.
        """
        ids = np.asarray(token_ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in 'iu'):
            raise ValueError(f'token sequence: expected a flat list of integers, found shape '
                             f'{ids.shape} of {ids.dtype}; give one sequence of token ids')
        reading = self._automaton.read(ids.tolist())
        symbols = list(reading.symbols)
        text = symbols[:self.plan_text is not None]
        words, point = (self._part(symbols, kind) for kind in ('word', 'plan'))
        shape = (self.horizon, ACTION_DIM)
        bins = np.array(symbols[-self._n_actions:], dtype=np.int64).reshape(shape)
        spans = np.array(reading.spans[-self._n_actions:], dtype=np.int64).reshape(*shape, 2)
        return Decoded(
            actions=self.bin_values[bins], bins=bins, spans=spans,
            terminate=self._part(symbols, 'terminate') == [1],
            plan=tuple(self.bin_values[point].tolist()), plan_words=tuple(words),
            plan_ids=tuple(ids[:sum(text)].tolist()))

    def start(self) -> Cursor:
        """
        Return the place before the first token, to be moved on token by token.

        Its legal ids are those of legal_next; its kind is 'text' (also where the end marker is
        due), 'word' or 'plan' in a plan, then 'terminate' or 'action', separators included.
        """
        return self._automaton.start()

    def legal_next(self, produced: Sequence[int]) -> np.ndarray:
        """
        Return the ids that may follow, sorted (m,) int64, read-only; empty when complete.

        produced: plain integers. Raises ValueError when they are already illegal.
        """
        return self._automaton.legal_next(produced)

    def position(self, n_produced: int) -> Position:
        """Say what the next token is; only for sequences of fixed length (see start())."""
        if self.sequence_length is None:
            raise ValueError('position: expected a scheme with one token per number and no free '
                             'text, found sequences of different lengths; use start() or '
                             'Decoded.spans')
        if not 0 <= n_produced < self.sequence_length:
            raise ValueError(f'position: expected 0 <= n < {self.sequence_length}, found '
                             f'{n_produced}; the sequence is complete there')
        slot, separator = self._automaton.layout()[n_produced]
        if separator:
            return Position('separator', slot)
        kinds = [each.kind for each in self._automaton.slots]
        return Position(kinds[slot], kinds[:slot].count(kinds[slot]))

    @property
    def fixed_places(self) -> tuple[tuple[np.ndarray, str], ...] | None:
        """
        Of every place its legal ids, sorted (m,) int64, and its kind as in Cursor.kind.

        None where the legal ids depend on what was chosen before: free text, and numbers written
        digit by digit.
        """
        legal = self._automaton.fixed_legal
        if legal is None:
            return None
        slots = self._automaton.slots
        kinds = [slots[slot].kind for slot, _ in self._automaton.layout()]
        return tuple(zip(legal, kinds, strict=True))

    @property
    def _n_actions(self) -> int:
        return self.horizon * ACTION_DIM

    def _slots(self, words: Sequence[Sequence[int]],
               plan_words: Sequence[Sequence[Sequence[int]]]) -> list[Choice | FreeText]:
        return [
            *([] if self.plan_text is None else [self.plan_text]),
            *(Choice(words=tuple(choices), kind='word') for choices in plan_words),
            *[Choice(words=tuple(words), kind='plan')] * self.plan_length,
            *[Choice(words=tuple(words[:2]), kind='terminate')] * self.terminate,
            *[Choice(words=tuple(words), kind='action')] * self._n_actions,
        ]

    def _part(self, symbols: Sequence[int], kind: str) -> list[int]:
        return [symbol for symbol, slot in zip(symbols, self._automaton.slots, strict=True)
                if slot.kind == kind]

    def _check_plan(self, plan: Sequence[float], plan_words: Sequence[int],
                    plan_ids: Sequence[int]) -> None:
        if len(plan) != self.plan_length:
            raise ValueError(f'cannot encode an action: expected {self.plan_length} plan values, '
                             f'found {len(plan)}; match plan_length of the tokenizer')
        sizes = self.plan_choices
        if len(plan_words) != len(sizes) or not all(
                0 <= word < size for word, size in zip(plan_words, sizes, strict=True)):
            raise ValueError(f'cannot encode an action: expected numbers below '
                             f'{list(sizes)} for the plan words, found {list(plan_words)}; '
                             'match plan_words of the tokenizer')
        if len(plan_ids) and self.plan_text is None:
            raise ValueError(f'cannot encode an action: expected no plan text, found '
                             f'{len(plan_ids)} tokens; this tokenizer was built without plan_text')


class TextNumberTokens(ActionTokenizer):
    """
    RT-2-PaLI-X: bins are the numbers '0'..'255' in the vocabulary's own tokens, even bins.

    number_token_ids: 256 token-id sequences. separator_ids: written between two numbers. Where
    one number begins another ('1', '12', '128' of single digits), a number is complete only when
    the separator comes, so then it is also written and required after the last one; without a
    separator such a vocabulary is refused with ValueError.
    """

    _bins_are_no_words = False

    def __init__(self, *, number_token_ids: Sequence[Sequence[int]],
                 separator_ids: Sequence[int] = (), **layout: Any) -> None:
        super().__init__(number_token_ids, EVEN_BINS, separator=separator_ids, **layout)


class OverwrittenTokens(ActionTokenizer):
    """
    OpenVLA: the last 256 ids of the base vocabulary, reversed, 256 edges and 255 centres.

    vocab_size: of the base vocabulary, without padding and added tokens (32000 for OpenVLA); bin
    b is id vocab_size - 1 - b. token_ids: instead, an explicit list of 256 ids, one per bin
    (RT-2-PaLM-E's least used tokens).
    """

    def __init__(self, *, vocab_size: int | None = None, token_ids: Sequence[int] | None = None,
                 **layout: Any) -> None:
        if vocab_size is not None and vocab_size < N_BINS:
            raise ValueError(f'vocab_size: expected at least {N_BINS}, found {vocab_size}; give '
                             'the size of the base vocabulary')
        last = None if vocab_size is None else range(vocab_size - 1, vocab_size - 1 - N_BINS, -1)
        super().__init__(_words(last, token_ids, 'vocab_size'), OPENVLA_BINS, **layout)


class AddedTokens(ActionTokenizer):
    """Tokens <action_0>..<action_255> added to the vocabulary from first_id on; even bins."""

    def __init__(self, *, first_id: int | None = None, token_ids: Sequence[int] | None = None,
                 **layout: Any) -> None:
        super().__init__(_words(_run(first_id), token_ids, 'first_id'), EVEN_BINS, **layout)


class LevelTokens(ActionTokenizer):
    """RT-1: 256 levels with truncation, ids from first_id on; round-trip error up to a level."""

    def __init__(self, *, first_id: int | None = None, token_ids: Sequence[int] | None = None,
                 **layout: Any) -> None:
        super().__init__(_words(_run(first_id), token_ids, 'first_id'), RT1_LEVELS, **layout)


def text_number_ids(encode: Callable[[str], Sequence[int]],
                    separator: str) -> dict[str, Sequence[Sequence[int]] | Sequence[int]]:
    """
    Find how a model's tokenizer writes the numbers; arguments for TextNumberTokens.

    encode: text -> ids without special tokens. A separator that melts into the number (' 128' as
    one token) is taken as part of it where that is unambiguous; otherwise numbers and separator
    are written by themselves.
    """
    joined = [tuple(encode(f'{separator}{number}')) for number in range(N_BINS)]
    if find_clash(joined) is None:
        return {'number_token_ids': joined, 'separator_ids': ()}
    numbers = [tuple(encode(str(number))) for number in range(N_BINS)]
    return {'number_token_ids': numbers,
            'separator_ids': tuple(encode(separator)) if separator else ()}


def plan_token_ids(
    config: 'TokenizerConfig', encode: Callable[[str], Sequence[int]],
    vocabulary: Callable[[], Iterable[int]],
) -> dict[str, Any]:
    """
    Find how a model's tokenizer writes the configured plan; arguments for every scheme.

    encode: text -> ids without special tokens. vocabulary: gives the ids that a plan in free
    text may be written with; called only where there is one. Raises ValueError where a word or
    the end marker cannot be written.
    """
    plan: dict[str, Any] = {}
    if config.plan_words is not None:
        plan['plan_words'] = [[_written(encode, word) for word in choices]
                              for choices in config.plan_words]
    if config.plan_text is not None:
        words = np.array(sorted(vocabulary()), dtype=np.int64)
        plan['plan_text'] = FreeText(words=words, end=_written(encode, config.plan_text.end),
                                     max_tokens=config.plan_text.max_tokens)
    return plan


def build_action_tokenizer(
    config: 'TokenizerConfig', *,
    number_token_ids: Sequence[Sequence[int]] | None = None,
    separator_ids: Sequence[int] = (),
    plan_words: Sequence[Sequence[Sequence[int]]] = (),
    plan_text: FreeText | None = None,
) -> ActionTokenizer:
    """
    Build the scheme a checkpoint's configuration names.

    The text scheme needs the model's tokenizer: pass **text_number_ids(encode,
    config.separator). So does a plan in words or text: pass **plan_token_ids(config, encode,
    vocabulary). Raises ValueError for an unknown scheme or missing ids.
    """
    for name, found in (('plan_words', len(plan_words) > 0), ('plan_text', plan_text is not None)):
        if found != (getattr(config, name) is not None):
            raise ValueError(f'plan: expected the ids of {name} exactly where the configuration '
                             'has it; pass **plan_token_ids(config, encode, vocabulary)')
    layout = {'horizon': config.horizon, 'terminate': config.terminate,
              'plan_length': config.plan_length, 'plan_words': plan_words,
              'plan_text': plan_text}
    if config.scheme == 'text':
        if number_token_ids is None:
            raise ValueError("token scheme 'text': expected number_token_ids, found none; pass "
                             "**text_number_ids(encode, config.separator)")
        return TextNumberTokens(number_token_ids=number_token_ids, separator_ids=separator_ids,
                                **layout)
    if config.scheme == 'overwritten':
        return OverwrittenTokens(vocab_size=config.vocab_size, token_ids=config.token_ids,
                                 **layout)
    schemes = {'added': AddedTokens, 'levels': LevelTokens}
    if config.scheme not in schemes:
        raise ValueError(f'token scheme: expected one of [text, overwritten, added, levels], '
                         f'found {config.scheme!r}; choose a listed one')
    return schemes[config.scheme](first_id=config.first_id, token_ids=config.token_ids, **layout)


def _one_id_per_bin(words: Sequence[Sequence[int]]) -> np.ndarray | None:
    if any(len(word) != 1 for word in words):
        return None
    ids = np.array([word[0] for word in words], dtype=np.int64)
    ids.setflags(write=False)
    return ids


def _run(first_id: int | None) -> range | None:
    return None if first_id is None else range(first_id, first_id + N_BINS)


def _written(encode: Callable[[str], Sequence[int]], text: str) -> tuple[int, ...]:
    ids = tuple(encode(text))
    if not ids:
        raise ValueError(f'plan: expected text that the model can write, found {text!r}; choose '
                         'another that its tokenizer keeps')
    return ids


def _words(computed: Sequence[int] | None, token_ids: Sequence[int] | None,
           name: str) -> list[tuple[int]]:
    if (computed is None) == (token_ids is None):
        found = 'neither' if computed is None else 'both'
        raise ValueError(f'action tokens: expected {name} or token_ids, found {found}; '
                         'give exactly one')
    return [(token,) for token in (token_ids if computed is None else computed)]
