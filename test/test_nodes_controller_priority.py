"""The controller's process comes before those that can wait, or says why it does not."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from vla_policy_node.nodes import priority  # noqa: E402

# Prints the scheduling of a thread that ran before the call and of one that starts after it.
THREADS = """
import os, threading
from vla_policy_node.nodes.priority import become_realtime
go, results = threading.Event(), []
def look():
    go.wait()
    results.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))
early = threading.Thread(target=look)
early.start()
obstacle = become_realtime(7)
late = threading.Thread(target=look)
late.start()
go.set()
early.join(), late.join()
print(results if not obstacle else obstacle)
"""

# Prints the scheduling of a controller's process, and whether its collector has less to do.
NODE = """
import gc, os, sys
import rclpy
from vla_policy_node.nodes.controller_node import make_node
rclpy.init(args=['--ros-args', '-p', 'realtime_priority:=' + sys.argv[1], '-p',
                 'pose_source:=none', '-p', 'workspace_enabled:=false'])
node = make_node()
print(os.sched_getscheduler(0), gc.get_freeze_count() > 1000)
node.destroy_node()
rclpy.shutdown()
"""


def test_every_thread_gets_the_priority_or_the_log_says_what_is_missing():
    found = subprocess.run(
        [sys.executable, '-c', THREADS], capture_output=True, text=True, check=True).stdout
    expected = str([(os.SCHED_FIFO, 7)] * 2)
    assert found.strip() == expected or 'expected the right to real-time priority 7' in found


def test_without_the_right_to_it_one_line_says_how_to_get_it(monkeypatch):
    def refuse(*_):
        raise PermissionError
    monkeypatch.setattr(priority.os, 'sched_setscheduler', refuse)
    obstacle = priority.become_realtime(20)
    assert obstacle.startswith('expected the right to real-time priority 20, found')
    assert 'limits.d' in obstacle and 'realtime_priority' in obstacle and '\n' not in obstacle


def test_a_thread_that_ended_meanwhile_does_not_matter(monkeypatch):
    def gone(*_):
        raise ProcessLookupError
    monkeypatch.setattr(priority.os, 'sched_setscheduler', gone)
    assert priority.become_realtime(20) == ''


def run_node(priority_value: int) -> tuple[str, str]:
    result = subprocess.run(
        [sys.executable, '-c', NODE, str(priority_value)], capture_output=True, text=True,
        check=True)
    return result.stdout.strip(), result.stderr


def test_the_process_of_a_controller_has_the_priority_of_its_parameter():
    found, log = run_node(7)
    assert found == f'{os.SCHED_FIFO} True' or 'expected the right to real-time' in log


def test_priority_zero_leaves_the_process_as_it_is():
    found, log = run_node(0)
    assert found == f'{os.SCHED_OTHER} True' and 'real-time' not in log
