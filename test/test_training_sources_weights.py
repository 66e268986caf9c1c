"""The three ways to weigh sources, and what they mean for each."""

import io
import math

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
import pytest
from rich.console import Console
import yaml

from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.weights import effective_shares
from vla_policy_node.training.sources.weights import mixture_table
from vla_policy_node.training.sources.weights import MixtureConfig
from vla_policy_node.training.sources.weights import source_shares

RECORDS = {'robot': 1000, 'chat': 9000}


def shares(**mixture) -> dict[str, float]:
    """Return the shares of robot and chat."""
    return source_shares(MixtureConfig(**mixture), RECORDS)


def test_probabilities_are_the_shares_in_the_order_of_the_sources():
    assert list(shares(probabilities={'chat': 0.34, 'robot': 0.66}).items()) == [
        ('robot', 0.66), ('chat', 0.34)]


def test_repetition_multiplies_the_records():
    assert shares(repetition={'robot': 9, 'chat': 1}) == {'robot': 0.5, 'chat': 0.5}
    assert shares(repetition={'robot': 3, 'chat': 1}) == {'robot': 0.25, 'chat': 0.75}


def test_temperature_1_is_natural_2_takes_roots_and_infinity_is_uniform():
    assert shares(temperature=1) == {'robot': 0.1, 'chat': 0.9}
    assert shares(temperature=2)['robot'] == pytest.approx(0.25)
    assert shares(temperature=math.inf) == {'robot': 0.5, 'chat': 0.5}
    assert MixtureConfig(**yaml.safe_load('temperature: .inf')).temperature == math.inf


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 10**12), min_size=1, max_size=6),
       st.floats(1.0, math.inf))
def test_temperature_keeps_the_order_and_never_widens_the_gaps(records, temperature):
    found = source_shares(MixtureConfig(temperature=temperature), records)
    natural = source_shares(MixtureConfig(temperature=1.0), records)
    assert math.fsum(found.values()) == pytest.approx(1.0)
    few, many = min(records, key=records.get), max(records, key=records.get)
    assert found[few] >= natural[few] - 1e-12 and found[many] >= found[few] - 1e-12


@pytest.mark.parametrize(('mixture', 'reason'), [
    ({}, 'found none'),
    ({'temperature': 2, 'repetition': {'robot': 1}}, 'found repetition and temperature'),
    ({'probabilities': {'robot': 0.5, 'chat': 0.4}}, 'add up to 1, found 0.9'),
    ({'probabilities': {}}, 'add up to 1'),
    ({'probabilities': {'robot': -0.5, 'chat': 1.5}}, 'greater than or equal to 0'),
    ({'probabilities': {'robot': math.nan}}, 'finite'),
    ({'repetition': {'robot': 0}}, 'above 0'),
    ({'temperature': 0.5}, 'greater than or equal to 1'),
    ({'temperature': math.nan}, 'greater than or equal to 1'),
    ({'weights': {}}, 'not permitted'),
])
def test_a_wrong_mixture_says_what_is_wrong(mixture, reason):
    with pytest.raises(ValidationError, match=reason):
        MixtureConfig(**mixture)


@pytest.mark.parametrize('kind', ['probabilities', 'repetition'])
def test_unknown_names_are_refused_with_the_known_ones(kind):
    with pytest.raises(SourceError, match=r'sources \(chat, robot\), found rob'):
        shares(**{kind: {'rob': 0.5, 'chat': 0.5}})


@pytest.mark.parametrize('kind', ['probabilities', 'repetition'])
def test_every_source_has_to_be_named(kind):
    with pytest.raises(SourceError, match='found none of robot'):
        shares(**{kind: {'chat': 1.0}})


def test_an_empty_source_is_refused():
    with pytest.raises(SourceError, match='found none in chat'):
        source_shares(MixtureConfig(temperature=2), {'robot': 3, 'chat': 0})


def test_effective_shares_say_how_often_a_record_is_seen():
    rows = effective_shares({'robot': 0.5, 'chat': 0.5}, RECORDS, {'robot': 10, 'chat': 9000},
                            samples=8000)
    assert [(row.name, row.records, row.episodes, row.share) for row in rows] == [
        ('robot', 1000, 10, 0.5), ('chat', 9000, 9000, 0.5)]
    assert [row.seen_per_record for row in rows] == [4.0, pytest.approx(0.4444, abs=1e-4)]


def test_the_table_has_a_row_per_source_in_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(mixture_table(effective_shares(
        {'robot': 0.66, 'chat': 0.34}, RECORDS, {'robot': 10, 'chat': 9000}, samples=80_000)))
    text = console.export_text()
    for words in ('robot', '1,000', '66.00%', '52.8 times', '34.00%', '3.02 times'):
        assert words in text
