"""Child processes are watched, and none is left behind."""

import os
from pathlib import Path
import signal
import sys
import time

import pytest

from vla_policy_node.evaluation.supervisor import free_domain_id
from vla_policy_node.evaluation.supervisor import ProcessDiedError
from vla_policy_node.evaluation.supervisor import reserve_domain_id
from vla_policy_node.evaluation.supervisor import Supervisor

_IGNORES_INTERRUPT = (
    'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);'
    'print("ready", flush=True); time.sleep(60)')


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    monkeypatch.setattr('vla_policy_node.evaluation.supervisor.STOP_TIMEOUT_S', 0.5)
    with Supervisor(tmp_path / 'logs', os.environ) as running:
        yield running


def _python(code: str) -> list[str]:
    return [sys.executable, '-c', code]


def _wait_for(condition, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.01)


def test_a_process_that_dies_is_named_with_the_end_of_its_log(supervisor):
    child = supervisor.start('policy_node', _python('print("no such checkpoint"); exit(3)'))
    child.process.wait()
    with pytest.raises(ProcessDiedError) as raised:
        supervisor.check()
    first, last = str(raised.value).splitlines()
    assert first.startswith('policy_node ended with exit code 3; the end of ')
    assert last == '  | no such checkpoint'


def test_a_process_that_was_killed_is_named_with_its_signal(supervisor):
    child = supervisor.start('simulated_robot', _python('import time; time.sleep(60)'))
    child.process.kill()
    child.process.wait()
    with pytest.raises(ProcessDiedError, match='simulated_robot was ended by signal 9'):
        supervisor.check()


def test_what_a_process_said_last_about_something_is_found(supervisor):
    child = supervisor.start('policy_node', _python(
        'print("configure refused: a"); print("[x] configure refused: no weights"); print("b")'))
    child.process.wait()
    assert supervisor.printed_after('policy_node', ' refused: ') == 'no weights'
    assert supervisor.printed_after('policy_node', 'exploded') == ''


def test_processes_that_run_are_no_reason_to_complain(supervisor):
    supervisor.start('a', _python('import time; time.sleep(60)'))
    supervisor.check()


def test_stopping_kills_what_ignores_the_interrupt(supervisor):
    child = supervisor.start('stubborn', _python(_IGNORES_INTERRUPT))
    _wait_for(lambda: 'ready' in child.log.read_text())
    supervisor.stop()
    assert child.process.returncode == -signal.SIGKILL


def test_a_process_group_goes_as_a_whole(supervisor):
    code = ('import subprocess, sys, time;'
            f'p = subprocess.Popen([sys.executable, "-c", {_IGNORES_INTERRUPT!r}]);'
            'print(p.pid, flush=True); time.sleep(60)')
    child = supervisor.start('parent', _python(code))
    _wait_for(lambda: 'ready' in child.log.read_text() and _numbers(child.log))
    [grandchild] = _numbers(child.log)
    supervisor.stop()
    _wait_for(lambda: not _runs(grandchild))


def _numbers(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().split() if word.isdigit()]


def _runs(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_a_free_domain_is_one_that_every_platform_allows():
    assert 1 <= free_domain_id() <= 101


def test_a_reserved_domain_is_given_to_nobody_else(monkeypatch):
    # Not among those that other runs of the tests reserve.
    free = iter((901, 901, 902))
    monkeypatch.setattr(
        'vla_policy_node.evaluation.supervisor.free_domain_id', lambda: next(free))
    first, reservation = reserve_domain_id()
    second, other = reserve_domain_id()
    with reservation, other:
        assert (first, second) == (901, 902)
