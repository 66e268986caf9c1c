"""Odd and hostile instructions: refused or harmless, and missed where the sanitising is broken."""

from faults_bench import play
import numpy as np
import pytest

from faults.parts import instructions
from faults.parts.bad_instructions import draw
from vla_policy_node import prompts
from vla_policy_node.prompts import InstructionError


def test_every_instruction_is_refused_or_leaves_the_prompt_as_it_is():
    results = play('instructions')
    assert results.misses == []
    assert results['instructions/prompts']['injected'] >= 1000
    assert results['instructions/tokens']['injected'] >= 200
    refused = results['instructions/prompts']['rejections']['InstructionError']
    assert 0.4 < refused / results['instructions/prompts']['injected'] < 0.8


def found(only='instructions/prompts', **subjects):
    def open_cases(**options):
        return instructions.cases(**subjects, **options)
    return ' '.join(play('instructions', only, open_cases=open_cases).misses)


def test_prompts_without_any_sanitising_are_found_out(monkeypatch):
    monkeypatch.setattr(prompts, 'clean_instruction', str.strip)
    assert 'expected a refusal' in found()


def test_special_tokens_that_reach_the_model_are_found_out(monkeypatch):
    monkeypatch.setattr(prompts, 'clean_instruction', str.strip)
    assert 'special tokens' in found('instructions/tokens')


@pytest.mark.parametrize(('name', 'gap'), [
    ('_REFUSED_CATEGORIES', frozenset()), ('MAX_INSTRUCTION_CHARACTERS', 10 ** 9)])
def test_a_gap_in_the_sanitising_is_found_out(monkeypatch, name, gap):
    monkeypatch.setattr(prompts, name, gap)
    assert 'expected a refusal' in found()


def test_an_instruction_that_may_imitate_the_prompt_is_found_out(monkeypatch):
    monkeypatch.setattr(prompts, '_refuse_labels', lambda *_: None)
    assert 'the prompt has another label' in found()


def test_an_instruction_that_fills_in_other_places_is_found_out():
    def build(template, text):
        return template.action.format(instruction=prompts.clean_instruction(text))
    assert "prompt '" in found(build=build)


def test_questions_are_looked_at_as_well():
    def ask(template, text):
        return template.question.replace('{question}', text)
    assert 'expected a refusal' in found(ask=ask)


def test_a_sanitising_that_refuses_everything_is_found_out():
    def build(template, text):
        raise InstructionError('no')
    assert 'an ordinary instruction was refused' in found(build=build)


def test_a_refusal_that_repeats_the_instruction_is_found_out():
    def build(template, text):
        try:
            return prompts.build_action_prompt(template, text)
        except InstructionError as error:
            raise InstructionError(f'{error}: {text}') from error
    assert 'expected one short printable line' in found(build=build)


def test_the_same_seed_draws_the_same_instructions():
    texts = [[draw(np.random.default_rng(seed), 'Q: {instruction} A:', '{instruction}').text
              for _ in range(3)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
