"""The frame of the fault suite: what it counts, and that nothing gets lost or passes silently."""

import json
import os
import time

from faults_bench import of
from faults_bench import play
from faults_bench import Results
import pytest
import typer
from typer.testing import CliRunner

from faults import __main__ as command
from faults import isolation
from faults import parts
from faults.playing import MOST_CRASHES
from faults.playing import Settings
from faults.summary import last_line
from faults.summary import summarise
from faults.tally import Case
from faults.tally import Tally

pytestmark = pytest.mark.slow


def case(play_episode, injections=10, name='case'):
    return Case(name=name, injections=injections, play=play_episode)


def hold_one(number, rng, tally):
    tally.hold('refused')


def miss_odd(number, rng, tally):
    tally.judge('odd' if number % 2 else None, f'number {number}', 'refused')


def crash(number, rng, tally):
    raise IndexError('list index out of range')


class TestCounting:
    def test_what_is_held_and_missed_adds_up_to_what_was_injected(self):
        result = play('x', open_cases=of([case(miss_odd)]))['x/case']
        assert (result['injected'], result['held'], result['missed']) == (10, 5, 5)
        assert result['rejections'] == {'refused': 5}

    def test_a_miss_tells_seed_episode_and_input(self):
        result = play('x', open_cases=of([case(miss_odd)]), seed=7)['x/case']
        assert result['misses'][1] == {
            'seed': 7, 'episode': 3, 'given': 'number 3', 'found': 'odd'}

    def test_only_the_first_misses_are_kept(self):
        result = play('x', open_cases=of([case(miss_odd, 100)]))['x/case']
        assert result['missed'] == 50 and len(result['misses']) == 5

    def test_an_exception_is_a_miss_with_its_place_and_the_rest_is_played(self):
        def crash_once(number, rng, tally):
            (crash if number == 3 else hold_one)(number, rng, tally)
        result = play('x', open_cases=of([case(crash_once)]))['x/case']
        assert (result['held'], result['missed']) == (9, 1)
        assert 'IndexError: list index out of range in test_faults_frame.py:' in \
            result['misses'][0]['found']

    def test_a_case_that_only_crashes_is_given_up(self):
        result = play('x', open_cases=of([case(crash, 10_000)]))['x/case']
        assert result['missed'] == MOST_CRASHES

    def test_an_episode_that_injects_nothing_is_a_miss(self):
        result = play('x', open_cases=of([case(lambda *_: None, 3)]))['x/case']
        assert result['missed'] == 3

    def test_times_to_zero_give_p99_and_worst(self):
        def timed(number, rng, tally):
            tally.hold(zero_ms=float(number))
        result = play('x', open_cases=of([case(timed, 101)]))['x/case']
        assert result['fault_to_zero_ms'] == {'count': 101, 'p99': 99.0, 'worst': 100.0}

    def test_an_episode_played_alone_has_the_chance_it_had_among_others(self):
        def tell(number, rng, tally):
            tally.miss(f'{rng.integers(10 ** 9)}')
        whole = play('x', open_cases=of([case(tell, 5)]), seed=3)['x/case']
        alone = play('x', 'x/case', open_cases=of([case(tell, 5)]), seed=3, episode=4)['x/case']
        assert alone['misses'] == [whole['misses'][4]]

    def test_cases_differ_in_their_chance(self):
        seen = []

        def note(number, rng, tally):
            seen.append(rng.integers(10 ** 9))
            tally.hold()
        play('x', open_cases=of([case(note, 1, 'a'), case(note, 1, 'b')]))
        assert seen[0] != seen[1]

    def test_only_the_wanted_case_is_played(self):
        cases = of([case(hold_one, name='a'), case(hold_one, name='b')])
        assert list(play('x', 'x/b', open_cases=cases)) == ['x/b']

    def test_a_case_of_no_such_name_is_told_and_not_passed_over(self):
        with pytest.raises(LookupError, match='expected a case of case, found x/other'):
            play('x', 'x/other', open_cases=of([case(hold_one)]))

    def test_a_long_input_is_shortened_in_the_middle(self):
        tally = Tally('x/case', 0)
        tally.miss('odd', 'a' * 10_000)
        assert len(tally.misses[0]['given']) < 500


class TestSummary:
    RESULTS = {
        'a/x': {'injected': 3, 'held': 2, 'missed': 1, 'rejections': {'r': 2}, 'duration_s': 1.0,
                'misses': [{'seed': 1, 'episode': 2, 'given': 'g', 'found': 'f'}]},
        'b/y': {'injected': 4, 'held': 4, 'missed': 0, 'rejections': {}, 'duration_s': 2.0,
                'misses': [], 'fault_to_zero_ms': {'count': 4, 'p99': 90.0, 'worst': 95.0}}}

    def test_the_last_line_adds_up_all_cases(self):
        summary = summarise(self.RESULTS, seed=1, short=False)
        assert last_line(summary) == 'faults: 7 injected, 6 held, 1 missed'

    def test_seed_versions_and_machine_are_written_down(self):
        summary = summarise(self.RESULTS, seed=1, short=True)
        assert summary['seed'] == 1 and summary['short'] is True
        assert summary['versions']['numpy'] and summary['machine']['cpus'] >= 1
        assert summary['cases']['b/y']['fault_to_zero_ms']['worst'] == 95.0

    def test_a_run_without_any_case_has_proven_nothing(self):
        assert summarise({}, seed=0, short=False)['missed'] == 1


# Every process of a part starts a Python of its own.

@pytest.fixture
def make_part(tmp_path, monkeypatch):
    """Return a function that makes a part whose episodes run one line of code."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body, name='made'):
        (tmp_path / f'{name}_part.py').write_text(
            'import os, subprocess, sys, time\n'
            'from contextlib import contextmanager\n'
            'from faults.tally import Case\n'
            f'def play(number, rng, tally):\n    {body}\n'
            '@contextmanager\n'
            'def cases(*, short, scratch):\n'
            f'    yield [Case(name="case", injections=4, play=play)]\n')
        monkeypatch.setitem(parts.PARTS, name, f'{name}_part')
        return name
    return make


def apart(part, tmp_path, silence_s=30.0):
    results = Results()
    isolation.play_apart(part, Settings(short=True, seed=0), results, tmp_path / 'log', silence_s)
    return results


class TestProcesses:
    def test_a_part_is_played_in_a_process_of_its_own_and_what_it_writes_is_logged(
            self, make_part, tmp_path):
        results = apart(make_part('print("words", os.getppid()); tally.hold()'), tmp_path)
        assert results['made/case']['held'] == 4 and list(results) == ['made/case']
        assert f'words {os.getpid()}' in (tmp_path / 'log').read_text()

    @pytest.mark.parametrize(('body', 'found'), [
        ('os.kill(os.getpid(), 11)', 'signal SIGSEGV'),
        ('os._exit(0)', 'died after begins made/case 4'),
        ('tally.hold(); tally.held == 4 and sys.exit(3)', 'exit code 3')])
    def test_a_process_that_dies_is_a_miss(self, make_part, tmp_path, body, found):
        results = apart(make_part(body), tmp_path)
        assert results['made/crash']['missed'] == 1
        assert found in results['made/crash']['misses'][0]['found']

    def test_a_part_that_hangs_is_a_miss_and_is_ended_with_its_children(
            self, make_part, tmp_path):
        body = 'print(subprocess.Popen(["sleep", "300"]).pid, flush=True); time.sleep(300)'
        results = apart(make_part(body), tmp_path, silence_s=3.0)
        assert 'nothing was counted for 3 s' in results['made/crash']['misses'][0]['found']
        child = int((tmp_path / 'log').read_text().split()[0])
        deadline_s = time.monotonic() + 5.0
        while _runs(child) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert not _runs(child)

    def test_a_part_that_cannot_be_set_up_is_a_miss(self, tmp_path, monkeypatch):
        monkeypatch.setitem(parts.PARTS, 'gone', 'faults.parts.of_no_such_name')
        results = apart('gone', tmp_path)
        assert 'ModuleNotFoundError' in results['gone/crash']['misses'][0]['found']


def _runs(pid):
    try:
        with open(f'/proc/{pid}/stat') as stream:
            return stream.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path):
        app = typer.Typer()
        app.command()(command.main)

        def run(*options):
            return CliRunner().invoke(app, ['--out', str(tmp_path / 'out'), *options])
        return run

    def test_a_miss_gives_exit_code_1_and_the_last_line_says_so(self, make_part, run, tmp_path):
        ran = run('--only', make_part('tally.judge(None if number else "odd", "this")'))
        assert ran.exit_code == 1
        assert ran.output.splitlines()[-1] == 'faults: 4 injected, 3 held, 1 missed'
        assert 'made/case: episode 0 of seed 0: odd; given this' in ran.output
        summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
        assert (summary['injected'], summary['held'], summary['missed']) == (4, 3, 1)
        assert not list((tmp_path / 'out').glob('.summary*'))

    def test_without_a_miss_the_exit_code_is_0(self, make_part, run):
        ran = run('--only', make_part('tally.hold("refused")'), '--short')
        assert ran.exit_code == 0
        assert ran.output.splitlines()[-1] == 'faults: 4 injected, 4 held, 0 missed'

    def test_a_part_that_crashed_fails_the_run(self, make_part, run):
        ran = run('--only', make_part('os.abort()'))
        assert ran.exit_code == 1 and ran.output.splitlines()[-1].endswith('1 missed')

    @pytest.mark.parametrize(('options', 'message'), [
        (['--only', 'nothing'], 'expected parts of'), (['--episode', '3'], 'expected one case')])
    def test_names_that_are_none_are_refused(self, run, options, message):
        ran = run(*options)
        assert ran.exit_code == 2 and message in ran.output
