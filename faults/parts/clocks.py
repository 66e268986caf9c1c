"""
The clock of all nodes jumps or stands still while the simulated arm moves (use_sim_time).

Held is a fault after which

- motion ends: at once where the clock jumps, because every observation is from another time; where
  it stands still no later than 200 ms afterwards (clock_timeout_s) and a ramp of 40 ms;
- whatever moves has an observation behind it that was made in the new time and is not older than
  the timeout by the new clock; while the clock stands still nothing moves;
- no limit is exceeded, by times of receipt, since the stamps are those of the broken clock;
- the arm moves again when the clock runs: after a jump back by less than a second as soon as the
  clock has caught up, because frames of the past are then not told from frames out of order.

The clock of the machine is left alone.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from faults.live.arm import Arm
from faults.live.arm import LONGEST_S
from faults.live.arm import RAMP_S
from faults.live.camera import Camera
from faults.live.camera import TOPIC
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.sim_clock import SimClock
from faults.live.usage import Waits
from faults.live.watch import Seen
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.control import ControlParameters

_FULL_RUNS = 20
_JUMPS_S = {'forward 10 s': 10.0, 'forward 1 h': 3600.0, 'back 10 s': -10.0,
            'back 1 h': -3600.0, 'back 0.5 s': -0.5}
_SHORT = ('forward 10 s', 'back 1 h', 'paused')
_PAUSE_S = (0.5, 1.2)
# From the moment the clock stands still to the zero command [s].
_STANDSTILL_S = ControlParameters().clock_timeout_s + RAMP_S
# An observation may be ahead of the clock of whoever looks at it by so much.
_SKEW_S = ControlParameters().max_clock_skew_s


@contextmanager
def cases(*, short: bool, scratch: Path, **controller: Any) -> Iterator[Sequence[Case]]:
    """Yield the cases; `controller` are parameters in place of those of the rig."""
    with rig(scratch, camera_topic=TOPIC) as running:
        watch = running.watch
        with SimClock(watch) as clock, Camera(watch, clock.now_ns):
            running.start_simulator(camera_rate_hz=0.5, use_sim_time=True)
            running.start_policy(use_sim_time=True)
            running.start_controller(**{'use_sim_time': True, **controller})
            hands = Hands(running, clock)
            yield [Case(name=name, injections=1 if short else _FULL_RUNS,
                        play=partial(hands.play, name))
                   for name in (_SHORT if short else (*_JUMPS_S, 'paused'))]


class Hands:
    """Turns the clock while the arm moves, and looks at what follows."""

    def __init__(self, running: Rig, clock: SimClock) -> None:
        """Prepare; nothing moves yet."""
        self._rig, self._watch, self._clock = running, running.watch, clock
        self._arm = Arm(running)

    def play(self, kind: str, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Play one fault of a kind."""
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        # Times of receipt are late where this process had to wait.
        waits = Waits(self._rig.children.pid('controller_node'), os.getpid())
        if kind == 'paused':
            trouble = self._pause(rng.uniform(*_PAUSE_S), waits)
        else:
            trouble = self._jump(_JUMPS_S[kind], waits)
        tally.judge(trouble or next(iter(motion_faults(self._watch, by_receipt=True)), None), kind)

    def _jump(self, by_s: float, waits: Waits) -> str | None:
        watch = self._watch
        new_s = self._clock.jump(by_s)
        jumped_s = time.time()
        watch.until(lambda: self._is_founded(watch.statuses[-1][1], new_s, jumped_s),
                    'motion by an observation of the new time')
        waited_s = waits.longest_s()
        settled_s = jumped_s + LONGEST_S + waited_s

        def is_settling(command: Seen) -> bool:
            return command.received_s < settled_s
        trouble = self._arm.unfounded_motion(waited_s, skip=is_settling)
        return trouble and f'{trouble}; the clock jumped by {by_s:g} s to {new_s:.3f} s'

    def _is_founded(self, status: Any, new_s: float, jumped_s: float) -> bool:
        seen_s = status.observation_stamp.sec + 1e-9 * status.observation_stamp.nanosec
        # The new time and a minute of it; the old one is further away, or what it was shows.
        return (self._watch.is_moving and time.time() > jumped_s + LONGEST_S
                and new_s - _SKEW_S <= seen_s <= new_s + 60.0)

    def _pause(self, lasts_s: float, waits: Waits) -> str | None:
        watch = self._watch
        self._clock.pause()
        paused_s = time.time()
        time.sleep(lasts_s)
        waited_s = waits.longest_s()
        resumed_s = time.time()
        rest_s = paused_s + _STANDSTILL_S + waited_s
        late = [command.received_s - paused_s for command in list(watch.commands)
                if command.received_s > rest_s and not command.is_zero]
        trouble = f'motion {1e3 * late[-1]:.0f} ms after the clock stood still' if late else None
        self._clock.resume()
        watch.until(lambda: watch.is_moving and watch.commands[-1].received_s > resumed_s,
                    'motion once the clock runs')
        return trouble
