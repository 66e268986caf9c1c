"""
A camera of the policy misbehaves while the simulated arm moves.

Every kind has one of two outcomes.

- Hold: what it sends is not to be acted upon, so the arm stops: the command is zero as soon as
  the last good frame has outlived the timeout of 100 ms and the speed is ramped down (40 ms), and
  stays zero until good frames come again. Silence, stamps older than the timeout, stamps further
  ahead than the skew; the policy node names the stamps it refuses.
- Go on: frames are lost, late, repeated or out of order, and what comes may be acted upon while
  it is fresh. Motion may pause. Two of them cannot be told from good cameras: one that shows the
  same picture with fresh stamps (a scene at rest looks the same), and one that stamps its frames
  up to the skew ahead. Frames that are overtaken are counted.

In either case no limit is exceeded, every motion has an observation behind it that is not older
than the timeout, no burst is played back, and the arm moves again once the camera is good.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
import time
from typing import Any

import numpy as np

from faults.live.arm import Arm
from faults.live.arm import LONGEST_S
from faults.live.camera import Behaviour
from faults.live.camera import Camera
from faults.live.camera import good
from faults.live.camera import RATE_HZ
from faults.live.camera import TOPIC
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.stand_in import PERIOD_S
from faults.live.usage import Waits
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.nodes.conversions import time_s

_FULL_RUNS = 20
_FRAME_NS = round(1e9 / RATE_HZ)
_MS = 1_000_000
# How long a camera misbehaves [s].
_LASTS_S = (0.8, 1.5)
# Of these something is fresh whatever the load of the machine.
_LIVELY = ('frozen', 'bursting', 'reordered', 'ahead', 'dropping 10 %')


def _frozen(rng: np.random.Generator) -> Behaviour:
    return lambda number, now_ns: [(now_ns, 128)]


def _silent(rng: np.random.Generator) -> Behaviour:
    return lambda number, now_ns: []


def _bursting(rng: np.random.Generator) -> Behaviour:
    """Hold frames back for up to half a second, then send a hundred of that time at once."""
    every = int(rng.integers(5, 15))

    def behave(number: int, now_ns: int) -> list[tuple[int, int]]:
        if number % every:
            return []
        step_ns = every * _FRAME_NS // 100
        return [(now_ns - (99 - i) * step_ns, i) for i in range(100)]
    return behave


def _dropping(share: float, rng: np.random.Generator) -> Behaviour:
    return lambda number, now_ns: [] if rng.random() < share else [(now_ns, number % 256)]


def _reordered(rng: np.random.Generator) -> Behaviour:
    """Send after each frame one from before it."""
    def behave(number: int, now_ns: int) -> list[tuple[int, int]]:
        if number % 2:
            return [(now_ns - round(rng.uniform(1.1, 1.9) * _FRAME_NS), number % 256)]
        return [(now_ns, number % 256)]
    return behave


def _shifted(low_ms: float, high_ms: float, rng: np.random.Generator) -> Behaviour:
    """Stamp every frame so much ahead of its time, behind it where negative."""
    by_ns = round(rng.uniform(low_ms, high_ms) * _MS)
    return lambda number, now_ns: [(now_ns + by_ns, number % 256)]


# name -> (outcome, what makes the behaviour). The timeout is 100 ms, the skew 50 ms.
KINDS: dict[str, tuple[str, Any]] = {
    'silent': ('hold', _silent),
    'past': ('hold', partial(_shifted, -2000.0, -110.0)),
    'long past': ('hold', partial(_shifted, -4e6, -1e4)),
    'future': ('hold', partial(_shifted, 150.0, 2000.0)),
    'far future': ('hold', partial(_shifted, 1e4, 4e6)),
    'frozen': ('go on', _frozen),
    'bursting': ('go on', _bursting),
    'reordered': ('go on', _reordered),
    'late': ('go on', partial(_shifted, -90.0, -10.0)),
    'ahead': ('go on', partial(_shifted, 5.0, 45.0)),
    **{f'dropping {100 * share:.0f} %': ('go on', partial(_dropping, share))
       for share in (0.1, 0.3, 0.5, 0.7, 0.9)},
}
# Of those that are alike the short form plays one.
_SHORT = ('silent', 'past', 'future', 'frozen', 'bursting', 'reordered', 'dropping 50 %')


@contextmanager
def cases(*, short: bool, scratch: Path, policy: dict[str, Any] | None = None,
          **controller: Any) -> Iterator[Sequence[Case]]:
    """Yield the cases; policy and controller: parameters in place of those of the rig."""
    with rig(scratch, camera_topic=TOPIC) as running, running.camera() as camera:
        running.start_simulator(camera_rate_hz=0.5)
        running.start_policy(**(policy or {}))
        running.start_controller(**controller)
        table = Table(running, camera)
        yield [Case(name=name, injections=1 if short else _FULL_RUNS,
                    play=partial(table.play, name))
               for name in (_SHORT if short else KINDS)]


class Table:
    """Lets the camera misbehave while the arm moves, and looks at what follows."""

    def __init__(self, running: Rig, camera: Camera) -> None:
        """Prepare; nothing moves yet."""
        self._rig, self._watch, self._camera = running, running.watch, camera
        self._arm = Arm(running)
        self._refused = 0

    def play(self, kind: str, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Play one misbehaviour of a kind."""
        outcome, make = KINDS[kind]
        pid = self._rig.children.pid('controller_node')
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        waits = Waits(pid)
        self._refused = self._watch.policy.frames_rejected
        began_s = self._camera.behave(make(rng))
        try:
            time.sleep(rng.uniform(*_LASTS_S))
            waited_s = waits.longest_s()
            if outcome == 'hold':
                trouble = self._motion_after(began_s, waited_s) or self._unnamed(kind)
            else:
                trouble = self._standstill(kind, began_s)
        finally:
            self._camera.behave(good)
        self._watch.until(lambda: self._watch.is_moving, 'motion once the camera is good')
        waited_s = waits.longest_s()
        trouble = (trouble or self._arm.unfounded_motion(waited_s) or self._played_back()
                   or next(iter(motion_faults(self._watch)), None))
        tally.judge(trouble, kind, self._named(kind))

    def _motion_after(self, began_s: float, waited_s: float) -> str | None:
        """Return what moved although nothing was to be acted upon, None where nothing did."""
        rest_s = began_s + LONGEST_S + waited_s
        for command in list(self._watch.commands):
            if command.stamp_s > rest_s and not command.is_zero:
                after_ms = 1e3 * (command.stamp_s - began_s)
                return f'motion {after_ms:.0f} ms after the last good frame'
        return self._arm.drift()

    def _unnamed(self, kind: str) -> str | None:
        """Return what the policy node failed to say, None where it named the fault."""
        policy = self._watch.policy
        if kind != 'silent' and policy.state != policy.STALE_IMAGE:
            return f'expected the policy node to name stale images, found {policy.state_text}'
        return None

    def _standstill(self, kind: str, began_s: float) -> str | None:
        """Return that nothing at all was done with frames that may be acted upon."""
        sent = [chunk for chunk in list(self._watch.chunks)
                if time_s(chunk.header.stamp) > began_s]
        return 'no action from frames that are fresh' if kind in _LIVELY and not sent else None

    def _named(self, kind: str) -> str:
        """Return the name under which frames were refused, '' where none had to be."""
        if kind == 'reordered':
            self._watch.until(
                lambda: self._watch.policy.frames_rejected > self._refused, 'refused frames')
            return 'out_of_order'
        return 'stale_image' if KINDS[kind][0] == 'hold' and kind != 'silent' else ''

    def _played_back(self) -> str | None:
        """Return what came of frames that should have been forgotten for newer ones."""
        chunks = list(self._watch.chunks)
        stamps_s = [time_s(chunk.observation_stamp) for chunk in chunks]
        sent_s = [time_s(chunk.header.stamp) for chunk in chunks]
        back = [now - before for before, now in zip(stamps_s[:-1], stamps_s[1:], strict=True)
                if now <= before and before - now < 1.0]
        if back:
            return f'an action from an observation {-back[0]:.3f} s before that of the last one'
        if len(sent_s) > 1:
            most = (sent_s[-1] - sent_s[0]) / PERIOD_S + 3
            if len(sent_s) > most:
                return f'{len(sent_s)} actions, expected at most {most:.0f} in their time'
        return None
