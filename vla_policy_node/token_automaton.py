"""
Which token may come next when a fixed number of symbols is written as token ids.

A sequence has slots; each slot takes one symbol out of 0..n-1; each symbol is a word of one or
more token ids. The words of a slot are made prefix-free (by appending the separator), so a
reader always knows where a symbol ends and every walk over legal tokens reads back. Knows
nothing of actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Word = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The symbols of a complete sequence and the half-open token range of each one's word."""

    symbols: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class _Node:
    """A place inside a word: children by token, the symbol when the word ends here."""

    __slots__ = ('children', 'legal', 'symbol')

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.symbol: int | None = None
        self.legal = np.empty(0, dtype=np.int64)

    def freeze(self) -> '_Node':
        """Precompute the legal arrays, so that a decode step only looks one up."""
        self.legal = np.array(sorted(self.children), dtype=np.int64)
        self.legal.setflags(write=False)
        for child in self.children.values():
            child.freeze()
        return self


class TokenAutomaton:
    """
    Writes and reads sequences of symbols, and names the legal continuations.

    words: the token ids of each symbol. choices: for each slot how many symbols it takes: only
    0..n-1 are legal there. separator: token ids between two slots, possibly none. Where a word
    of the last slot begins another one ('1' and '12'), the separator also ends the sequence;
    elsewhere nothing follows the last word. Raises ValueError where words could not be told
    apart.
    """

    def __init__(self, words: Sequence[Sequence[int]], choices: Sequence[int],
                 separator: Sequence[int] = ()) -> None:
        self.words = tuple(_checked_word(word, symbol) for symbol, word in enumerate(words))
        self.separator: Word = tuple(int(token) for token in separator)
        self._choices = tuple(choices)
        last = self.words[:self._choices[-1]]
        self._last_tail = self.separator if find_clash(last) else ()
        self._roots = self._build_roots()
        self.token_ids = self._collect_token_ids()

    @property
    def single(self) -> bool:
        """True when every symbol is one token."""
        return all(len(word) == 1 for word in self.words)

    @property
    def max_length(self) -> int:
        """Length of the longest legal sequence, in tokens."""
        longest = sum(max(len(word) for word in self.words[:n]) for n in self._choices)
        return longest + self._tail_length()

    @property
    def sequence_length(self) -> int | None:
        """Exact number of tokens when every symbol is one token, else None."""
        return self.max_length if self.single else None

    def legal_next(self, produced: Sequence[int]) -> np.ndarray:
        """
        Return the ids that may follow, sorted (m,) int64, read-only; empty when complete.

        Raises ValueError when what was produced is already illegal.
        """
        return self._walk(produced, [], [])[1].legal

    def write(self, symbols: Sequence[int]) -> list[int]:
        """Return the token ids of one symbol per slot."""
        tokens: list[int] = []
        for slot, symbol in enumerate(symbols):
            tokens += self.words[symbol]
            tokens += self._tail(slot)
        return tokens

    def read(self, tokens: Sequence[int]) -> Reading:
        """Return the symbols of a complete sequence; ValueError for anything else."""
        symbols: list[int] = []
        ends: list[int] = []
        slot, node = self._walk(tokens, symbols, ends)
        if slot < len(self._choices):
            raise ValueError(
                f'token sequence: expected {len(self._choices)} numbers, found {slot} in '
                f'{len(tokens)} tokens; decode until no token is legal')
        spans = []
        start = 0
        for symbol, end in zip(symbols, ends, strict=True):
            spans.append((start, start + len(self.words[symbol])))
            start = end
        return Reading(symbols=tuple(symbols), spans=tuple(spans))

    def _walk(self, tokens: Sequence[int], symbols: list[int],
              ends: list[int]) -> tuple[int, _Node]:
        slot, node = 0, self._roots[0]
        for index, token in enumerate(tokens):
            node = node.children.get(token)
            if node is None:
                raise ValueError(self._complaint(tokens, index))
            if node.symbol is not None:
                symbols.append(node.symbol)
                ends.append(index + 1)
                slot += 1
                node = self._roots[slot]
        return slot, node

    def _complaint(self, tokens: Sequence[int], index: int) -> str:
        legal = self.legal_next(tokens[:index])
        if legal.size == 0:
            return (f'token sequence: expected it to end after {index} tokens, found '
                    f'{len(tokens)}; cut what follows the action')
        return (f'token sequence: expected at position {index} one of {legal.size} ids in '
                f'[{legal[0]}, {legal[-1]}], found {tokens[index]}; decode within the legal ids')

    def _tail(self, slot: int) -> Word:
        return self.separator if slot < len(self._choices) - 1 else self._last_tail

    def _tail_length(self) -> int:
        return len(self.separator) * (len(self._choices) - 1) + len(self._last_tail)

    def _build_roots(self) -> list[_Node]:
        built: dict[tuple[int, Word], _Node] = {}
        for slot, n in enumerate(self._choices):
            key = (n, self._tail(slot))
            if key not in built:
                built[key] = _build_trie([word + key[1] for word in self.words[:n]])
        roots = [built[n, self._tail(slot)] for slot, n in enumerate(self._choices)]
        return [*roots, _Node().freeze()]  # the end: no token is legal

    def _collect_token_ids(self) -> np.ndarray:
        used = {token for n in self._choices for word in self.words[:n] for token in word}
        if self._tail_length():
            used.update(self.separator)
        token_ids = np.array(sorted(used), dtype=np.int64)
        token_ids.setflags(write=False)
        return token_ids


def find_clash(words: Sequence[Word]) -> tuple[int, int] | None:
    """Return two symbols of which one's word begins (or equals) the other's, or None."""
    order = sorted(range(len(words)), key=lambda symbol: words[symbol])
    for first, second in pairwise(order):
        if words[second][:len(words[first])] == words[first]:
            return first, second
    return None


def _build_trie(words: Sequence[Word]) -> _Node:
    clash = find_clash(words)
    if clash:
        first, second = clash
        raise ValueError(
            f'token words: expected numbers that can be told apart, found {first} written '
            f'{list(words[first])} and {second} written {list(words[second])}; give a separator '
            'that no number begins with, or another token scheme')
    root = _Node()
    for symbol, word in enumerate(words):
        node = root
        for token in word:
            node = node.children.setdefault(token, _Node())
        node.symbol = symbol
    return root.freeze()


def _checked_word(word: Sequence[int], symbol: int) -> Word:
    checked = tuple(int(token) for token in word)
    if not checked or min(checked) < 0:
        raise ValueError(f'token words: expected at least one id >= 0 for number {symbol}, found '
                         f'{list(checked)}; check the token ids of the scheme')
    return checked
