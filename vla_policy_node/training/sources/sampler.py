"""
Which record comes at which position of an endless training stream, by arithmetic alone.

Knows sources as numbers and sizes. Nothing is remembered between draws, so a training resumes at
any position, ranks take every w-th position, and memory does not grow with the number of records.
"""

from collections.abc import Sequence
from functools import lru_cache
import hashlib
from itertools import accumulate
import math
from typing import NamedTuple

# Shares are kept as whole numbers of slots; this many positions hold each source exactly that
# often, so a share is right to 2 ** -32.
_SLOTS = 2 ** 32
# 2**32 over the golden ratio, odd: multiples of it fall most evenly around a circle of 2**32
# slots, so that every short stretch of positions is mixed in nearly the wanted shares.
_STRIDE = 0x9E3779B9
_MASK = 2 ** 32 - 1
_ROUNDS = 4


class Draw(NamedTuple):
    """Source number and record number."""

    source: int
    record: int


class MixtureSampler:
    """
    An endless stream of draws, addressed by position 0, 1, 2, ...

    Sources are interleaved evenly: after n positions a source was drawn n * probability times,
    give or take a few. Within a source, records come in shuffled epochs: none comes again before
    all have come. The same sizes, probabilities and seed give the same stream everywhere.
    """

    def __init__(
        self, sizes: Sequence[int], probabilities: Sequence[float], seed: int,
    ) -> None:
        """
        Take the number of records and the probability of each source.

        Raises ValueError for other than one positive size per probability, and for probabilities
        that are negative or do not add up to 1.
        """
        _check(sizes, probabilities)
        self._sizes = tuple(int(size) for size in sizes)
        self._ends = tuple(accumulate(_slots(probabilities)))
        self._seed = seed
        self._offset = _hash(seed) & _MASK

    def draw(self, position: int) -> Draw:
        """Return what comes at a position (0 or more)."""
        return self.replacement(position, 0)

    def replacement(self, position: int, attempt: int) -> Draw:
        """
        Return what the source at a position has `attempt` draws later; 0 is `draw`.

        It stands in for a corrupt record and still comes at its own position.
        """
        period, place = divmod(position, _SLOTS)
        source = self._source_at(place)
        low, high = self._bounds(source)
        earlier = period * (high - low) + self._count_before(place, low, high)
        size = self._sizes[source]
        epoch, number = divmod(earlier + attempt, size)
        return Draw(source, shuffled(number, size, _hash(self._seed, source, epoch)))

    def draw_range(self, first: int, count: int) -> list[Draw]:
        """Return what comes at the positions first..first+count-1."""
        return [self.draw(position) for position in range(first, first + count)]

    def _source_at(self, place: int) -> int:
        slot = (place * _STRIDE + self._offset) % _SLOTS
        return next(source for source, end in enumerate(self._ends) if slot < end)

    def _bounds(self, source: int) -> tuple[int, int]:
        return (self._ends[source - 1] if source else 0), self._ends[source]

    def _count_before(self, place: int, low: int, high: int) -> int:
        """Return how many places before this one have their slot in [low, high)."""
        # A slot (a p + b) mod m is in [low, high) exactly when these two floors differ by one
        # more than they would without it, so the count is a difference of sums of floors.
        offset = self._offset + _SLOTS
        return (_floor_sum(place, _SLOTS, _STRIDE, offset - low)
                - _floor_sum(place, _SLOTS, _STRIDE, offset - high))


def shuffled(number: int, size: int, key: int) -> int:
    """
    Return where a keyed shuffle of 0..size-1 puts a number, without holding the shuffle.

    A Feistel network shuffles the numbers of an even count of bits; results that are too large
    are put through again, which takes under four tries on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    while True:
        number = _feistel(number, half, keys)
        if number < size:
            return number


def _feistel(number: int, half: int, keys: Sequence[int]) -> int:
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << half | right


def _mix(value: int) -> int:
    """Scramble 64 bits (the finalizer of splitmix64); the upper half is returned."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (value ^ value >> 31) >> 32


@lru_cache(maxsize=256)
def _round_keys(key: int) -> tuple[int, ...]:
    return tuple(_hash(key, number) for number in range(_ROUNDS))


@lru_cache(maxsize=256)
def _hash(*numbers: int) -> int:
    """Return 64 bits that depend on all the numbers, the same in every process."""
    digest = hashlib.blake2b(repr(numbers).encode('ascii'), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


def _slots(probabilities: Sequence[float]) -> list[int]:
    """Return whole numbers of slots that add up to all; the largest remainders are rounded up."""
    total = math.fsum(probabilities)
    wanted = [probability / total * _SLOTS for probability in probabilities]
    slots = [math.floor(share) for share in wanted]
    short = sorted((number for number, share in enumerate(wanted) if share > 0.0),
                   key=lambda number: slots[number] - wanted[number])
    for number in short[:_SLOTS - sum(slots)]:
        slots[number] += 1
    return slots


def _floor_sum(count: int, modulus: int, factor: int, offset: int) -> int:
    """Return the sum of floor((factor * i + offset) / modulus) for i in 0..count-1, offset >= 0.

    Takes as many steps as Euclid's algorithm on factor and modulus.
    """
    total = 0
    while count > 0:
        total += (factor // modulus) * (count * (count - 1) // 2) + (offset // modulus) * count
        factor, offset = factor % modulus, offset % modulus
        count, offset = divmod(factor * count + offset, modulus)
        factor, modulus = modulus, factor
        if not modulus:
            break
    return total


def _check(sizes: Sequence[int], probabilities: Sequence[float]) -> None:
    if len(sizes) != len(probabilities) or not sizes or min(sizes) < 1:
        raise ValueError('expected a positive size for each probability, found sizes '
                         f'{list(sizes)} and probabilities {list(probabilities)}')
    if min(probabilities) < 0.0 or abs(math.fsum(probabilities) - 1.0) > 1e-6:
        raise ValueError('expected probabilities from 0 that add up to 1, found '
                         f'{list(probabilities)}')
