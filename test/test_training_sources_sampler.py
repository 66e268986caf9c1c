"""The stream of draws: mixed as wanted, complete epochs, the same from any position on."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from vla_policy_node.training.sources.sampler import MixtureSampler
from vla_policy_node.training.sources.sampler import shuffled

# Found over 30 mixtures of 2 to 6 sources and 5000 positions: 3.1.
_MOST_OFF = 6.0


@st.composite
def samplers(draw, most: int = 60):
    """Return (sizes, probabilities, seed) of one to five sources."""
    sizes = draw(st.lists(st.integers(1, most), min_size=1, max_size=5))
    weights = draw(st.lists(st.integers(0, 100), min_size=len(sizes), max_size=len(sizes)).filter(
        any))
    probabilities = [weight / sum(weights) for weight in weights]
    return sizes, probabilities, draw(st.integers(0, 2**63))


@settings(deadline=None)
@given(samplers(), st.integers(0, 2**40), st.integers(1, 30))
def test_starting_again_at_any_position_gives_what_would_have_come(mixture, position, count):
    whole = MixtureSampler(*mixture).draw_range(position, count)
    restarted = MixtureSampler(*mixture)
    for place in range(count):
        assert restarted.draw(position + place) == whole[place]


@settings(deadline=None, max_examples=50)
@given(samplers(), st.integers(1, 7))
def test_no_record_comes_twice_before_all_have_come_over_all_ranks(mixture, ranks):
    sizes = mixture[0]
    by_rank = [MixtureSampler(*mixture) for _ in range(ranks)]
    drawn = [by_rank[position % ranks].draw(position) for position in range(300)]
    for source, size in enumerate(sizes):
        records = [draw.record for draw in drawn if draw.source == source]
        for start in range(0, len(records), size):
            epoch = records[start:start + size]
            assert len(set(epoch)) == len(epoch)
            assert len(epoch) < size or set(epoch) == set(range(size))


@settings(deadline=None, max_examples=50)
@given(samplers(most=10**9), st.integers(0, 2**33), st.integers(1, 400))
def test_any_stretch_of_positions_has_the_wanted_shares(mixture, first, count):
    _, probabilities, _ = mixture
    drawn = MixtureSampler(*mixture).draw_range(first, count)
    for source, probability in enumerate(probabilities):
        found = sum(draw.source == source for draw in drawn)
        assert abs(found - probability * count) < _MOST_OFF
        assert probability or not found


def test_a_batch_of_8_at_half_and_half_holds_3_to_5_of_each():
    sampler = MixtureSampler([100, 100], [0.5, 0.5], seed=0)
    counts = {sum(draw.source for draw in sampler.draw_range(8 * step, 8)) for step in range(500)}
    assert counts <= {3, 4, 5}


def test_a_share_of_one_in_1000_is_kept():
    sampler = MixtureSampler([10**9, 10], [0.999, 0.001], seed=2)
    assert 9 <= sum(draw.source for draw in sampler.draw_range(0, 10_000)) <= 11


def test_the_order_differs_between_epochs_seeds_and_sources():
    one = [draw.record for draw in MixtureSampler([50], [1.0], seed=1).draw_range(0, 100)]
    other = [draw.record for draw in MixtureSampler([50], [1.0], seed=2).draw_range(0, 50)]
    assert one[:50] != one[50:] and one[:50] != other
    pair = MixtureSampler([50, 50], [0.5, 0.5], seed=1).draw_range(0, 100)
    first, second = ([draw.record for draw in pair if draw.source == source] for source in (0, 1))
    assert first[:40] != second[:40]


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_a_shuffle_puts_every_number_in_one_place(size, key):
    assert sorted(shuffled(number, size, key) for number in range(size)) == list(range(size))


def test_a_shuffle_puts_a_number_everywhere_about_equally_often():
    counts = [0] * 10
    for key in range(5000):
        counts[shuffled(3, 10, key)] += 1
    assert min(counts) > 400 and max(counts) < 600


def test_shuffled_neighbours_are_not_neighbours():
    places = [shuffled(number, 10**9, 5) for number in range(2000)]
    mean = sum(places) / len(places)
    steps = sorted(abs(a - b) for a, b in zip(places, places[1:], strict=False))
    assert 0.47e9 < mean < 0.53e9 and 0.2e9 < steps[1000] < 0.4e9


def test_the_stream_is_the_same_on_every_machine():
    sampler = MixtureSampler([7, 1000], [0.25, 0.75], seed=3)
    assert [tuple(draw) for draw in sampler.draw_range(10**12, 6)] == [
        (1, 295), (1, 701), (0, 1), (1, 213), (1, 440), (1, 506)]


def test_replacements_are_the_next_draws_of_the_same_source():
    sampler = MixtureSampler([5, 8], [0.5, 0.5], seed=4)
    position = 3
    source = sampler.draw(position).source
    later = [draw for draw in sampler.draw_range(position, 40) if draw.source == source]
    assert [sampler.replacement(position, attempt) for attempt in range(6)] == later[:6]


@pytest.mark.parametrize(('sizes', 'probabilities'), [
    ([], []), ([3], [0.5, 0.5]), ([3, 0], [0.5, 0.5]), ([3, 3], [0.5, 0.4]), ([3, 3], [1.5, -0.5]),
])
def test_impossible_mixtures_are_refused(sizes, probabilities):
    with pytest.raises(ValueError, match='expected'):
        MixtureSampler(sizes, probabilities, seed=0)
