"""Hostile checkpoints: all refused before anything of them runs, and missed where one is not."""

import pickle
import sys

from faults_bench import play
import pytest

from faults.canary import pickled
from faults.canary import Watch
from faults.parts import bad_headers
from faults.parts import checkpoints
from faults.parts.hostile_files import HARMLESS
from faults.parts.hostile_files import HOSTILE
from faults.parts.hostile_files import LOADS
from faults.parts.hostile_files import REFUSED
from vla_policy_node.policy import PolicyError

pytestmark = pytest.mark.slow


def test_every_hostile_folder_is_refused_or_harmless_and_no_payload_runs():
    results = play('checkpoints')
    assert results.misses == []
    assert results['checkpoints/hostile']['injected'] > 165
    assert results['checkpoints/headers']['injected'] >= 500
    refused = sum(results['checkpoints/hostile']['rejections'].values())
    assert refused > 155, 'most of them must be refused, not only harmless'


def test_there_are_folders_that_must_load_because_refusing_all_proves_nothing():
    outcomes = [hostile.outcome for hostile in HOSTILE]
    assert outcomes.count(LOADS) == 2
    assert outcomes.count(REFUSED) > 5 * outcomes.count(HARMLESS)
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)


def missed(load, *names):
    hostile = [hostile for hostile in HOSTILE if hostile.name in names]
    assert len(hostile) == len(names)

    def open_cases(**options):
        return checkpoints.cases(load=load, hostile=hostile, **options)
    results = play('checkpoints', 'checkpoints/hostile', open_cases=open_cases)
    return [miss.split("'found': ")[1] for miss in results.misses]


def refuse(folder):
    raise PolicyError('no')


def test_a_loader_that_takes_anything_is_found_out():
    assert missed(lambda folder: None, 'pickle weights.pt', 'pipe config.json', 'an adapter') \
        == ["'loaded'}"] * 3


def test_a_loader_that_unpickles_is_found_out():
    def load(folder):
        pickle.loads((folder / 'weights.pt').read_bytes())
        refuse(folder)
    assert 'the payload has run' in missed(load, 'pickle weights.pt')[0]


def test_a_loader_that_unpickles_what_is_harmless_is_found_out():
    def load(folder):
        pickle.loads(pickle.dumps(PolicyError('x')))
        refuse(folder)
    assert 'seen: pickle.find_class' in missed(load, 'pickle weights.pt')[0]


def test_a_loader_that_imports_code_of_the_folder_is_found_out(monkeypatch):
    def load(folder):
        monkeypatch.syspath_prepend(folder)
        __import__('evil')
    assert 'the payload has run' in missed(load, 'auto_map of an unknown model')[0]
    del sys.modules['evil']


def test_a_loader_that_follows_links_out_of_the_folder_is_found_out():
    def load(folder):
        (folder / 'config.json').open().close()
        refuse(folder)
    assert 'seen: opened' in missed(load, 'link out config.json')[0]


def test_a_loader_that_refuses_everything_is_found_out():
    found = missed(refuse, 'link inside', 'cache of the hub', 'an adapter')
    assert len(found) == 2 and all('expected it to load' in each for each in found)


def test_a_loader_that_would_take_all_memory_is_found_out():
    def load(folder):
        (folder / 'config.json').read_bytes()
    assert 'found MemoryError' in missed(load, 'sparse config.json')[0]


def test_a_loader_whose_errors_are_of_several_lines_is_found_out():
    def load(folder):
        raise PolicyError('one\ntwo')
    assert 'expected one line' in missed(load, 'an adapter')[0]


class TestWatch:
    def test_an_unpickled_name_is_seen_and_plain_data_is_not(self, tmp_path):
        with Watch.over(tmp_path, tmp_path / 'outside') as watch:
            pickle.loads(pickle.dumps({'a': [1, 2]}))
            assert watch.seen == []
            pickle.loads(pickled(tmp_path / 'trace'))
        assert 'pickle.find_class' in watch.seen[0]
        assert (tmp_path / 'trace').exists()

    def test_what_happens_outside_of_the_context_is_not_seen(self, tmp_path):
        with Watch.over(tmp_path, tmp_path / 'outside') as watch:
            pass
        pickle.loads(pickled(tmp_path / 'trace'))
        assert watch.seen == []


@pytest.mark.parametrize('broken', [lambda *_: None, lambda *_: 1 / 0])
def test_a_reader_of_headers_that_is_broken_is_found_out(monkeypatch, broken):
    monkeypatch.setattr(bad_headers, 'read_checkpoint', broken)
    results = play('checkpoints', 'checkpoints/headers')
    assert results['checkpoints/headers']['missed'] > 50
