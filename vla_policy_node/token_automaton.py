"""
Which token may come next when a fixed number of slots is written as token ids.

A slot takes one of some words, each of one or more token ids, or a free text of a bounded number
of ids that an end marker closes. The words of a slot are made prefix-free (by appending the
separator), so a reader always knows where one ends and every walk over legal tokens reads back.
Knows nothing of actions.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Word = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A slot that takes one of its words; kind is the caller's name for it."""

    words: tuple[Word, ...]
    kind: str = ''

    def __post_init__(self) -> None:
        """Check the words; ValueError for an empty one or a negative id."""
        words = tuple(_checked_word(word, symbol) for symbol, word in enumerate(self.words))
        object.__setattr__(self, 'words', words)

    @property
    def lengths(self) -> set[int]:
        """The lengths that its words have, in tokens."""
        return {len(word) for word in self.words}

    def write(self, symbol: int) -> Word:
        """Return the word of that number."""
        return self.words[symbol]

    def length(self, symbol: int) -> int:
        """Return the length of the word of that number, in tokens."""
        return len(self.words[symbol])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeText:
    """
    A slot that takes 0 to max_tokens of the ids `words`, closed by the end marker.

    words: (W,) int64, sorted, read-only. The marker's first id is taken out of them, so that
    this id always closes the text. Raises ValueError where nothing could be written or closed.
    """

    words: np.ndarray
    end: Word
    max_tokens: int
    kind: str = 'text'

    def __post_init__(self) -> None:
        """Check the marker and take it out of the words."""
        end = tuple(int(token) for token in self.end)
        if not end or min(end) < 0 or self.max_tokens < 1:
            raise ValueError(f'free text: expected an end marker of at least one id >= 0 and '
                             f'max_tokens >= 1, found {list(end)} and {self.max_tokens}; give '
                             'another marker')
        words = np.setdiff1d(np.asarray(self.words, dtype=np.int64), end[:1])
        if not words.size or words[0] < 0:
            raise ValueError(f'free text: expected at least one id >= 0 to write with, found '
                             f'{words[:5].tolist()}; check the vocabulary')
        words.setflags(write=False)
        object.__setattr__(self, 'words', words)
        object.__setattr__(self, 'end', end)

    def without(self, token_ids: Sequence[int]) -> 'FreeText':
        """Return the same slot, not to be written with these ids."""
        return FreeText(words=np.setdiff1d(self.words, token_ids), end=self.end,
                        max_tokens=self.max_tokens, kind=self.kind)

    @property
    def lengths(self) -> set[int]:
        """The lengths that a text can have, in tokens, the marker not counted."""
        return set(range(self.max_tokens + 1))

    def write(self, text: Sequence[int]) -> Word:
        """Return the ids of a text; ValueError where it is too long or holds other ids."""
        text = tuple(int(token) for token in text)
        if len(text) > self.max_tokens:
            raise ValueError(f'free text: expected at most {self.max_tokens} tokens, found '
                             f'{len(text)}; shorten it')
        odd = [token for token in text if not _holds(self.words, token)]
        if odd:
            raise ValueError(f'free text: expected ids of words, found {odd[0]}, which ends the '
                             'text or is no word; write it otherwise')
        return text

    def length(self, n_tokens: int) -> int:
        """Return how many tokens a text of that many takes: a text's symbol is its length."""
        return n_tokens


Slot = Choice | FreeText


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    The symbols of a complete sequence and the half-open token range of each one's word.

    A choice's symbol is the number of its word, a free text's the number of its tokens.
    """

    symbols: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class _Node:
    """A place inside a word: children by token, the symbol when the word ends here."""

    __slots__ = ('children', 'legal', 'symbol')

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.symbol: int | None = None
        self.legal = np.empty(0, dtype=np.int64)

    def step(self, token: int) -> '_Node | None':
        """Return the place after a token; None where it is not legal."""
        return self.children.get(token)

    def freeze(self) -> '_Node':
        """Precompute the legal arrays, so that a decode step only looks one up."""
        self.legal = np.array(sorted(self.children), dtype=np.int64)
        self.legal.setflags(write=False)
        for child in self.children.values():
            child.freeze()
        return self


class _TextNode(_Node):
    """A place in a free text: the marker is its child, any word leads to the place after it."""

    __slots__ = ('after', 'words')

    def __init__(self, text: FreeText, legal: np.ndarray, n_tokens: int, after: _Node) -> None:
        super().__init__()
        self.children = _build_trie([text.end], n_tokens).children
        self.words, self.legal, self.after = text.words, legal, after

    def step(self, token: int) -> _Node | None:
        """Return the place after a token; None where it is not legal."""
        return self.after if _holds(self.words, token) else self.children.get(token)


class Cursor:
    """A place in a sequence, moved on token by token; made by TokenAutomaton.start()."""

    __slots__ = ('_node', '_roots', '_slots', 'ends', 'n_tokens', 'symbols')

    def __init__(self, slots: Sequence[Slot], roots: Sequence[_Node]) -> None:
        self._slots = slots
        self._roots = roots
        self._node = roots[0]
        self.n_tokens = 0
        self.symbols: list[int] = []
        self.ends: list[int] = []

    @property
    def legal(self) -> np.ndarray:
        """The ids that may follow, sorted (m,) int64, read-only; empty when complete."""
        return self._node.legal

    @property
    def kind(self) -> str:
        """The kind of the slot that the next token belongs to; '' when complete."""
        slot = len(self.symbols)
        return self._slots[slot].kind if slot < len(self._slots) else ''

    def advance(self, token: int) -> None:
        """Take one token; ValueError, with the cursor where it was, unless it is legal."""
        node = self._node.step(token)
        if node is None:
            raise ValueError(self._complaint(token))
        self.n_tokens += 1
        if node.symbol is not None:
            self.symbols.append(node.symbol)
            self.ends.append(self.n_tokens)
            node = self._roots[len(self.symbols)]
        self._node = node

    def _complaint(self, token: int) -> str:
        if self.legal.size == 0:
            return (f'token sequence: expected it to end after {self.n_tokens} tokens, found '
                    f'{token} there; cut what follows the action')
        return (f'token sequence: expected at position {self.n_tokens} one of {self.legal.size} '
                f'ids in [{self.legal[0]}, {self.legal[-1]}], found {token}; decode within the '
                'legal ids')


class TokenAutomaton:
    """
    Writes and reads sequences of slots, and names the legal continuations.

    separator: token ids between a choice and the next slot, possibly none. Where a word of the
    last slot begins another one ('1' and '12'), the separator also ends the sequence; elsewhere
    nothing follows the last word. Raises ValueError where words could not be told apart.

    token_ids: (M,) int64 sorted, every id that can be legal. choice_ids: (C,) int64 sorted,
    those of them that are legal outside free text.
    """

    def __init__(self, slots: Sequence[Slot], separator: Sequence[int] = ()) -> None:
        self.slots = tuple(slots)
        self._tails = self._find_tails(tuple(int(token) for token in separator))
        self._roots = self._build_roots()
        self.choice_ids = self._collect(Choice)
        self.token_ids = _read_only(np.union1d(self.choice_ids, self._collect(FreeText)))

    @property
    def max_length(self) -> int:
        """Length of the longest legal sequence, in tokens."""
        return (sum(max(slot.lengths) for slot in self.slots)
                + sum(len(tail) for tail in self._tails))

    @property
    def sequence_length(self) -> int | None:
        """Exact number of tokens, None where it is not the same for all sequences."""
        fixed = all(len(slot.lengths) == 1 for slot in self.slots)
        return self.max_length if fixed else None

    @property
    def fixed_legal(self) -> tuple[np.ndarray, ...] | None:
        """
        The legal ids of every place, sorted (m,) int64 each; None where they depend on a choice.

        They do not where each place has its own ids, whatever was written before.
        """
        levels = [_levels(root) for root in self._roots[:-1]]
        if any(level is None for level in levels):
            return None
        return tuple(legal for level in levels for legal in level)

    def start(self) -> Cursor:
        """Return the place before the first token."""
        return Cursor(self.slots, self._roots)

    def legal_next(self, produced: Sequence[int]) -> np.ndarray:
        """
        Return the ids that may follow, sorted (m,) int64, read-only; empty when complete.

        Raises ValueError when what was produced is already illegal. It walks from the start;
        to produce a sequence, move one cursor instead.
        """
        return self._walk(produced).legal

    def layout(self) -> list[tuple[int, bool]]:
        """Return (slot, is separator) of every token of a sequence of fixed length."""
        return [(slot, place >= word) for slot, tail in enumerate(self._tails)
                for word in self.slots[slot].lengths
                for place in range(word + len(tail))]

    def write(self, symbols: Sequence[int | Sequence[int]]) -> list[int]:
        """Return the token ids of one symbol per slot; of a free text, its ids are given."""
        tokens: list[int] = []
        for slot, symbol, tail in zip(self.slots, symbols, self._tails, strict=True):
            tokens += slot.write(symbol)
            tokens += tail
        return tokens

    def read(self, tokens: Sequence[int]) -> Reading:
        """Return the symbols of a complete sequence; ValueError for anything else."""
        cursor = self._walk(tokens)
        if cursor.legal.size:
            raise ValueError(
                f'token sequence: expected {self._contents(self.slots)}, found '
                f'{self._contents(self.slots[:len(cursor.symbols)])} in {len(tokens)} tokens; '
                'decode until no token is legal')
        starts = [0, *cursor.ends[:-1]]
        spans = tuple((start, start + slot.length(symbol)) for start, slot, symbol
                      in zip(starts, self.slots, cursor.symbols, strict=True))
        return Reading(symbols=tuple(cursor.symbols), spans=spans)

    def _walk(self, tokens: Sequence[int]) -> Cursor:
        cursor = self.start()
        for token in tokens:
            cursor.advance(token)
        return cursor

    def _contents(self, slots: Sequence[Slot]) -> str:
        numbers = sum(isinstance(slot, Choice) for slot in slots)
        text = 'a text and ' if any(isinstance(slot, FreeText) for slot in slots) else ''
        return f'{text}{numbers} numbers'

    def _find_tails(self, separator: Word) -> list[Word]:
        tails = [slot.end if isinstance(slot, FreeText) else separator for slot in self.slots]
        last = self.slots[-1]
        if isinstance(last, Choice) and not find_clash(last.words):
            tails[-1] = ()
        return tails

    def _build_roots(self) -> list[_Node]:
        built: dict[tuple[Slot, Word], _Node] = {}
        for key in zip(self.slots, self._tails, strict=True):
            if key not in built:
                slot, tail = key
                built[key] = (_build_text(slot) if isinstance(slot, FreeText)
                              else _build_trie([word + tail for word in slot.words]))
        roots = [built[key] for key in zip(self.slots, self._tails, strict=True)]
        return [*roots, _Node().freeze()]  # the end: no token is legal

    def _collect(self, kind: type) -> np.ndarray:
        used: set[int] = set()
        for slot, tail in set(zip(self.slots, self._tails, strict=True)):
            if isinstance(slot, kind):
                used.update(tail, *_words(slot))
        return _read_only(np.array(sorted(used), dtype=np.int64))


def find_clash(words: Sequence[Word]) -> tuple[int, int] | None:
    """Return two symbols of which one's word begins (or equals) the other's, or None."""
    order = sorted(range(len(words)), key=lambda symbol: words[symbol])
    for first, second in pairwise(order):
        if words[second][:len(words[first])] == words[first]:
            return first, second
    return None


def _words(slot: Slot) -> Sequence[Sequence[int]]:
    return slot.words if isinstance(slot, Choice) else [slot.words]


def _build_trie(words: Sequence[Word], first_symbol: int = 0) -> _Node:
    clash = find_clash(words)
    if clash:
        first, second = clash
        raise ValueError(
            f'token words: expected numbers that can be told apart, found {first} written '
            f'{list(words[first])} and {second} written {list(words[second])}; give a separator '
            'that no number begins with, or another token scheme')
    root = _Node()
    for symbol, word in enumerate(words, first_symbol):
        node = root
        for token in word:
            node = node.children.setdefault(token, _Node())
        node.symbol = symbol
    return root.freeze()


def _levels(root: _Node) -> list[np.ndarray] | None:
    """Return the legal ids after 0, 1, ... tokens of a word; None where they differ by word."""
    levels = []
    nodes = [root]
    while any(node.legal.size for node in nodes):
        if isinstance(nodes[0], _TextNode) or not all(
                np.array_equal(node.legal, nodes[0].legal) for node in nodes):
            return None
        levels.append(nodes[0].legal)
        nodes = [child for node in nodes for child in node.children.values()]
    return levels


def _build_text(text: FreeText) -> _Node:
    """Return the first of max_tokens + 1 places; at the last one only the marker is legal."""
    end = _read_only(np.array(text.end[:1], dtype=np.int64))
    node = _build_trie([text.end], text.max_tokens)
    legal = _read_only(np.union1d(text.words, end))
    for n_tokens in reversed(range(text.max_tokens)):
        node = _TextNode(text, legal, n_tokens, node)
    return node


def _holds(sorted_ids: np.ndarray, token: int) -> bool:
    place = bisect_left(sorted_ids, token)
    return place < len(sorted_ids) and sorted_ids[place] == token


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _checked_word(word: Sequence[int], symbol: int) -> Word:
    checked = tuple(int(token) for token in word)
    if not checked or min(checked) < 0:
        raise ValueError(f'token words: expected at least one id >= 0 for number {symbol}, found '
                         f'{list(checked)}; check the token ids of the scheme')
    return checked
