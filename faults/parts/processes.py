"""
The policy's process is stopped, killed or hangs while the simulated arm moves.

Held is a fault after which

- the first zero command is stamped within 100 ms and one period of the controller; where the
  kernel let the controller wait for a processor meanwhile, by its own count, so much later;
- only zeros follow, then silence, and the tool stays where it is;
- nothing moves again before it may. After a kill that is until the controller is enabled again:
  actions of the restarted policy are refused. A policy that goes on after a stop or a hang is the
  one that was enabled, so what it takes is an action from a camera frame taken after the arm had
  stopped: neither what was being computed nor what was on its way is carried out.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
import signal
import time
from typing import Any

import numpy as np

from faults.live.arm import Arm
from faults.live.arm import DEADLINE_S
from faults.live.arm import NEVER_S
from faults.live.camera import TOPIC
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.usage import Waits
from faults.live.watch import Seen
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.control import State
from vla_policy_node.nodes.conversions import time_s

_RUNS = {'stopped': (200, 3), 'killed': (200, 1), 'hung': (200, 3)}
_REFUSED_CHUNKS = 3


@contextmanager
def cases(*, short: bool, scratch: Path, **controller: Any) -> Iterator[Sequence[Case]]:
    """Yield the cases; `controller` are parameters in place of those of the rig."""
    with rig(scratch, camera_topic=TOPIC) as running, running.camera():
        running.start_simulator(camera_rate_hz=0.5)
        running.start_policy()
        running.start_controller(**controller)
        victim = Victim(running)
        yield [Case(name=name, injections=runs[short], play=partial(victim.play, name))
               for name, runs in _RUNS.items()]


class Victim:
    """Lets a fault happen while the arm moves, and looks at what follows."""

    def __init__(self, running: Rig) -> None:
        """Prepare; nothing moves yet."""
        self._rig, self._watch = running, running.watch
        self._arm = Arm(running)
        self._received_ms: dict[str, list[float]] = {}

    def play(self, kind: str, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Play one fault of a kind."""
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        pid = self._rig.children.pid('controller_node')
        waits = Waits(pid)
        fault_s = getattr(self, f'_begin_{kind}')()
        zero = self._arm.final_zero(lambda command: command.stamp_s > fault_s)
        if zero is None:
            tally.miss(f'no zero command within {NEVER_S:g} s', kind)
            getattr(self, f'_resume_{kind}')()
        else:
            waited_s = waits.longest_s()
            trouble = self._trouble(kind, zero, fault_s, waited_s)
            zero_ms = 1e3 * (zero.stamp_s - fault_s)
            if trouble:
                tally.miss(trouble, kind, zero_ms=zero_ms)
            else:
                tally.hold(zero_ms=zero_ms)
            self._note(tally, 1e3 * (zero.received_s - fault_s), 1e3 * waited_s)
        if kind == 'killed':
            self._watch.enable_at_last()

    # The faults; each returns when it began, by the system's clock [s]

    def _begin_stopped(self) -> float:
        fault_s = time.time()
        self._rig.children.signal('policy_node', signal.SIGSTOP)
        return fault_s

    def _begin_killed(self) -> float:
        fault_s = time.time()
        self._rig.children.kill('policy_node')
        return fault_s

    def _begin_hung(self) -> float:
        self._rig.control.hang = 1.0
        return self._watch.until(lambda: self._rig.control.hung_at_s, 'a policy that hangs')

    # What follows

    def _trouble(self, kind: str, zero: Seen, fault_s: float, waited_s: float) -> str | None:
        """Return what is wrong after a zero command, None where nothing is."""
        took_s = zero.stamp_s - fault_s
        late = None
        if took_s > DEADLINE_S + waited_s:
            late = (f'zero after {1e3 * took_s:.1f} ms, expected within {1e3 * DEADLINE_S:.0f} ms'
                    f' and {1e3 * waited_s:.1f} ms of waiting for a processor')
        resting = self._arm.drift()
        resumed_s = getattr(self, f'_resume_{kind}')()
        if kind == 'killed':
            early = self._motion_unless_enabled(zero)
        else:
            early = self._early_motion(zero, resumed_s)
        beyond = motion_faults(self._watch)
        return late or resting or early or (beyond[0] if beyond else None)

    # Each returns when the policy went on, by the system's clock [s]

    def _resume_stopped(self) -> float:
        resumed_s = time.time()
        self._rig.children.signal('policy_node', signal.SIGCONT)
        return resumed_s

    def _resume_hung(self) -> float:
        watch, silent_s = self._watch, time.time()
        # The heartbeat goes on: without it this would be no more than a stopped process.
        watch.until(lambda: watch.policy_heard_s and watch.policy_heard_s[-1] > silent_s,
                    'a heartbeat of the policy node that hangs')
        resumed_s = time.time()
        self._rig.control.hang = 0.0
        return resumed_s

    def _resume_killed(self) -> float:
        watch = self._watch
        watch.policy = None
        self._rig.start_policy()
        watch.until(lambda: watch.policy is not None and watch.policy.state == watch.policy.IDLE,
                    'an active policy node')
        resumed_s = time.time()
        watch.instruct()
        return resumed_s

    # What it takes to move again

    def _early_motion(self, zero: Seen, resumed_s: float) -> str | None:
        """Return what moved before a fresh action came, None where nothing did."""
        watch = self._watch
        refused = watch.controller.chunks_rejected + _REFUSED_CHUNKS
        # After a long pause DDS may have forgotten who the policy is: then it takes enabling.
        watch.until(lambda: watch.is_moving or (
            watch.controller.chunks_rejected >= refused
            and watch.controller.last_rejection.startswith('second_publisher')),
            'motion by fresh actions, or refused ones')
        early = [command for command in list(watch.commands)
                 if zero.stamp_s < command.stamp_s < resumed_s and not command.is_zero]
        if early:
            return 'motion before the policy went on'
        for _, status in list(watch.statuses):
            early_s = zero.stamp_s - time_s(status.observation_stamp)
            if status.state == State.MOVING and time_s(status.header.stamp) > resumed_s \
                    and early_s > 0.0:
                return f'an action from {early_s:.3f} s before the arm had stopped'
        return None

    def _motion_unless_enabled(self, zero: Seen) -> str | None:
        """Return what the restarted policy moved, None where the controller refused it."""
        watch = self._watch
        before = watch.controller.chunks_rejected
        watch.until(lambda: watch.controller.chunks_rejected >= before + _REFUSED_CHUNKS
                    or watch.is_moving, 'refused actions of the restarted policy')
        return self._arm.motion_after(zero)

    def _note(self, tally: Tally, received_ms: float, waited_ms: float) -> None:
        """Keep what was measured beside the stamps."""
        times_ms = self._received_ms.setdefault(tally.name, [])
        times_ms.append(received_ms)
        tally.figures['received_p99_ms'] = round(float(np.percentile(times_ms, 99)), 2)
        tally.figures['received_worst_ms'] = round(max(times_ms), 2)
        tally.figures['controller_waited_worst_ms'] = round(
            max(tally.figures.get('controller_waited_worst_ms', 0.0), waited_ms), 2)
