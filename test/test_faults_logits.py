"""Adversarial logits: all held by the decoder, and missed where a decoder is broken."""

from faults_bench import play
import pytest
import torch

from faults.parts import logits
from faults.parts.token_schemes import schemes
from vla_policy_node.policy import decoding
from vla_policy_node.policy.choosing import Chooser
from vla_policy_node.policy.choosing import TOKEN
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.types import DecodeError

pytestmark = pytest.mark.slow


def test_no_adversarial_logits_lead_to_an_illegal_token_and_failures_are_held():
    results = play('logits')
    assert results.misses == []
    for name, result in results.items():
        assert result['injected'] >= 10, name
        assert sum(result['rejections'].values()) > 0, name
    assert results['logits/added_greedy']['injected'] >= 500
    assert 0.0 < results['logits/failed_decode_holds']['fault_to_zero_ms']['worst'] < 1000.0


def missed(only, make=logits.make_decoder):
    def open_cases(**options):
        return logits.cases(make=make, **options)
    results = play('logits', only, open_cases=open_cases)
    return results[only]['missed'], ' '.join(results.misses)


def test_a_decoder_that_takes_any_token_is_found_out(monkeypatch):
    choose = Chooser.choose

    def next_to_it(self, *arguments):
        row = choose(self, *arguments)
        row[TOKEN] += 1.0
        return row
    monkeypatch.setattr(Chooser, 'choose', next_to_it)
    count, text = missed('logits/added_greedy')
    assert count > 150 and 'not the likeliest' in text


class Illegal:
    """Takes one id beyond the legal ones in the last place."""

    def __init__(self, model, scheme, kind):
        self._decoder = ConstrainedDecoder(model, scheme.tokenizer, kind)

    def decode(self, inputs):
        decoded = self._decoder.decode(inputs)
        decoded.token_ids[-1] = 1
        return decoded


@pytest.mark.parametrize('only', [
    'logits/added_greedy', 'logits/overwritten_greedy', 'logits/added_sample',
    'logits/digits_greedy', 'logits/plan_greedy'])
def test_a_decoder_that_lets_an_illegal_token_through_is_found_out(only):
    count, text = missed(only, Illegal)
    assert count > 10 and 'which is not legal' in text


@pytest.mark.parametrize('only', ['logits/added_greedy', 'logits/digits_greedy',
                                  'logits/failed_decode_holds'])
def test_a_decoder_that_keeps_its_failures_to_itself_is_found_out(monkeypatch, only):
    monkeypatch.setattr(decoding, '_check_finite', lambda *_: None)
    assert missed(only)[0] > 0


class Repairing:
    """Makes zeros of what is not finite, which is an answer where there is none."""

    def __init__(self, model, scheme, kind):
        self._model = model
        self._decoder = ConstrainedDecoder(model, scheme.tokenizer, kind)

    def decode(self, inputs):
        self._model.rows = torch.nan_to_num(self._model.rows)
        return self._decoder.decode(inputs)


def test_a_decoder_that_repairs_logits_is_found_out():
    count, text = missed('logits/added_greedy', Repairing)
    assert count > 50 and 'not finite' in text


class Anxious(ConstrainedDecoder):
    """Fails without a reason."""

    def decode(self, inputs):
        raise DecodeError('no')


def test_a_decoder_that_fails_without_reason_is_found_out():
    count, text = missed(
        'logits/added_greedy', lambda model, scheme, kind: Anxious(model, scheme.tokenizer, kind))
    assert count > 50 and 'every legal logit is finite' in text


@pytest.mark.parametrize(('name', 'tokens', 'legal'), [
    ('digits', [], [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]), ('digits', [10], [20]),
    ('digits', [12, 15], [10, 11, 12, 13, 14, 15, 20]), ('digits', [12, 16], [20]),
    ('digits', [10, 20] * 7, []), ('plan', [2] + [40] * 7, []), ('plan', [22] * 5, [2]),
    ('plan', [2], range(40, 296)), ('added', [40] * 7, []),
    ('overwritten', [], range(56, 312))])
def test_what_may_come_next_is_told_without_the_automaton(name, tokens, legal):
    scheme = next(scheme for scheme in schemes() if scheme.name == name)
    assert list(scheme.legal(tokens)) == list(legal)
    assert scheme.tokenizer.legal_next(tokens).tolist() == sorted(legal)
