"""
How evenly the controller sends commands while a policy keeps every core busy.

Starts a camera, the real policy node with a policy that computes on all cores without a pause,
and the real controller, each in a process of its own over DDS, and looks at the stamps of the
commands:

    . tools/env.sh && python benchmarks/control_loop.py --seconds 60

A command that answers a new chunk at once is not part of the rhythm and is left out; the gaps
around it are those of the rhythm. A command that this process misses on an overloaded machine
looks like a gap and is counted. Prints a table and, as the last line, the same as JSON. Exit code
1 where a target is missed.
"""

import argparse
from collections.abc import Sequence
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import latency
import numpy as np
import psutil

RATE_HZ = 100.0
TARGETS_MS = {'p99': 3.0, 'max': 20.0}

_CAMERA_HZ = 30.0
_CHUNK_S = 0.18
_SIZE = 1024
_PATIENCE_S = 60.0
_COMMANDS = '/controller_node/delta_twist_cmds'


def _set_environment() -> None:
    """Set what must be in place before the first DDS participant."""
    from vla_policy_node.bringup import dds_environment
    os.environ.update(dds_environment())
    # A domain of its own: nothing else is heard or commanded.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)


class BusyPolicy(latency.FreePolicy):
    """A policy that computes on every core as long as a policy of 5 Hz may."""

    def __init__(self) -> None:
        """Give torch all cores, as a user may, and make something to multiply."""
        import torch
        super().__init__()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._torch = torch
        self._weights = torch.ones(_SIZE, _SIZE, dtype=torch.bfloat16)

    def infer(self, observation: object) -> object:
        """Compute for a while, then return the one chunk."""
        end_s = time.monotonic() + _CHUNK_S
        with self._torch.inference_mode():
            while time.monotonic() < end_s:
                self._torch.mm(self._weights, self._weights)
        return super().infer(observation)


def _policy() -> None:
    from vla_policy_node.nodes.policy_node import PolicyNode
    from vla_policy_node.nodes.runtime import run
    sys.exit(run(lambda: PolicyNode(lambda _: BusyPolicy())))


def _processes(seconds: float) -> list[subprocess.Popen]:
    """Start camera, policy and controller; each finds its parameters on its command line."""
    frames = round(seconds * _CAMERA_HZ)
    camera = [sys.executable, latency.__file__, '--role', 'camera', '--frames', str(frames),
              '--rate', str(_CAMERA_HZ)]
    policy = [
        sys.executable, __file__, '--role', 'policy', '--ros-args', '-p', 'autostart:=true',
        '-p', 'rate_hz:=1000.0', '-p', 'image_wait_s:=60.0', '-p', 'max_duration_s:=3600.0']
    controller = [
        sys.executable, '-m', 'vla_policy_node.nodes.controller_node', '--ros-args',
        '-r', '~/action_chunk:=/policy_node/action_chunk', '-p', 'dry_run:=false',
        '-p', f'command_rate_hz:={RATE_HZ}', '-p', 'pose_source:=none',
        '-p', 'workspace_enabled:=false', '-p', 'command_timeout_s:=2.0']
    return [
        subprocess.Popen(camera, stdin=subprocess.PIPE, text=True),
        subprocess.Popen(policy), subprocess.Popen(controller)]


class Observer(latency.Observer):
    """Also keeps the stamps of all commands, and of the first status about every chunk."""

    def __init__(self) -> None:
        """Join the graph."""
        from geometry_msgs.msg import TwistStamped
        super().__init__()
        self.stamps_ns: list[int] = []
        self.chunk_stamps_ns: dict[int, int] = {}
        self.node.create_subscription(TwistStamped, _COMMANDS, self._on_command, 1000)

    def start(self) -> None:
        """Wait for a policy node that starts slowly on a full machine, then begin."""
        import rclpy
        from vla_msgs.msg import PolicyStatus
        end_s = time.monotonic() + _PATIENCE_S
        while self.policy.state != PolicyStatus.IDLE and time.monotonic() < end_s:
            rclpy.spin_once(self.node, timeout_sec=0.2)
        super().start()

    def _on_command(self, message: object) -> None:
        self.stamps_ns.append(_nanoseconds(message.header.stamp))

    def _on_controller(self, status: object) -> None:
        super()._on_controller(status)
        if status.chunks_accepted:
            self.chunk_stamps_ns.setdefault(status.sequence, _nanoseconds(status.header.stamp))


def _nanoseconds(stamp: object) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def rhythm(stamps_ns: Sequence[int], chunk_stamps_ns: Sequence[int]) -> np.ndarray:
    """
    Return the stamps of the commands without those that answered a chunk at once [s], float64.

    stamps_ns: of all commands. chunk_stamps_ns: of the status that follows such an answer, at
    most one for each: the answer is the last command before it.
    """
    stamps = np.sort(np.array(stamps_ns, np.int64))
    answers = np.searchsorted(stamps, np.array(sorted(chunk_stamps_ns)), side='right') - 1
    return np.delete(stamps, answers[answers >= 0]) * 1e-9


def jitter_ms(times_s: np.ndarray, period_s: float) -> np.ndarray:
    """Return by how much the time between two commands was longer or shorter than it should."""
    return 1e3 * np.abs(np.diff(times_s) - period_s)


def _busy_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _measure(seconds: float) -> dict[str, object]:
    """Run once and return the figures."""
    processes = _processes(seconds)
    try:
        observer = Observer()
        observer.start()
        watched = [psutil.Process(process.pid) for process in processes[1:]]
        before, started_s = [_busy_s(one) for one in watched], time.monotonic()
        processes[0].stdin.write('go\n')
        processes[0].stdin.flush()
        observer.watch(processes[0])
        lasted_s = time.monotonic() - started_s
        busy = [(_busy_s(one) - was) / lasted_s
                for one, was in zip(watched, before, strict=True)]
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(20)
    return _figures(observer, seconds, busy)


def _figures(observer: Observer, seconds: float, busy: Sequence[float]) -> dict[str, object]:
    times_s = rhythm(observer.stamps_ns, list(observer.chunk_stamps_ns.values()))
    deviation = jitter_ms(times_s, 1.0 / RATE_HZ)
    quantiles = np.percentile(deviation, (50, 95, 99, 100))
    return {
        'command_rate_hz': RATE_HZ, 'seconds': seconds,
        'jitter_ms': dict(zip(
            ('p50', 'p95', 'p99', 'max'), quantiles.round(3).tolist(), strict=True)),
        'measured_rate_hz': round(float((len(times_s) - 1) / (times_s[-1] - times_s[0])), 2),
        'periods': len(deviation),
        'over_20_ms': int((deviation > TARGETS_MS['max']).sum()),
        'chunks_answered': len(observer.chunk_stamps_ns),
        # Missed by a starved observer, not by the controller; each looks like a gap.
        'commands_missed': observer.controller.commands_sent - len(observer.stamps_ns),
        'cores_busy_policy': round(busy[0], 2), 'cores_busy_controller': round(busy[1], 2),
        'processors': len(os.sched_getaffinity(0)), 'load_average': os.getloadavg()[0],
    }


def _print(figures: dict[str, object]) -> bool:
    """Print the table; return whether every target is met."""
    from rich.console import Console
    from rich.table import Table
    table = Table(title=f'time between commands at {RATE_HZ:g} Hz: deviation from '
                        f'{1e3 / RATE_HZ:g} ms')
    for title in ('figure', 'measured', 'target'):
        table.add_column(title)
    jitter = figures['jitter_ms']
    for name, value in jitter.items():
        target = TARGETS_MS.get(name)
        table.add_row(f'{name} [ms]', f'{value:.2f}', f'<= {target:g}' if target else '')
    for name in ('periods', 'over_20_ms', 'commands_missed', 'measured_rate_hz',
                 'chunks_answered', 'cores_busy_policy', 'cores_busy_controller', 'processors',
                 'load_average'):
        table.add_row(name.replace('_', ' '), str(figures[name]), '')
    Console().print(table)
    print(json.dumps(figures))
    return all(jitter[name] <= limit for name, limit in TARGETS_MS.items())


def _parse() -> SimpleNamespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--seconds', type=float, default=60.0, help='how long (default 60)')
    parser.add_argument('--out', type=Path, help='also write the JSON into this file')
    parser.add_argument('--role', choices=('policy',), help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    return options


def main() -> int:
    """Measure, or play one of the parts."""
    options = _parse()
    if options.role == 'policy':
        return _policy()
    _set_environment()
    figures = _measure(options.seconds)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    return 0 if _print(figures) else 1


if __name__ == '__main__':
    sys.exit(main())
