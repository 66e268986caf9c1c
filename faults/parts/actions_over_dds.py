"""
Bad chunks are published to the real controller while the simulated arm moves.

Good chunks move the tool along y. Bad ones carry a motion along x, so whatever of them is followed
shows. Each is refused under its name in the controller's status, counted under it in the
diagnostics, and the good one after it is accepted. With bad ones only, the arm stops.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from vla_msgs.msg import EndEffectorDeltaChunk

from faults.live.arm import Arm
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.usage import Waits
from faults.live.watch import CHUNKS
from faults.live.watch import PATIENCE_S
from faults.live.watch import WaitedInVainError
from faults.parts.bad_messages import chunk_message
from faults.parts.bad_messages import KINDS
from faults.parts.bad_messages import LIMITS
from faults.parts.bad_messages import make_tiny
from faults.parts.bad_messages import Moment
from faults.parts.bad_messages import PERIOD_S
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.nodes.conversions import time_ns
from vla_policy_node.nodes.conversions import time_s

_DELTA_M = 0.01
# name -> faults in the full and in the short form.
_INJECTIONS = {
    'malformed': (2000, 30), 'tiny': (100, 2), 'second_publisher': (40, 2), 'only_bad': (20, 1)}
_OF_EACH_KIND = 2
# Between a bad chunk and the good one after it; the controller's reader keeps one.
_APART_S = 0.005
_BAD_RATE_HZ = 50.0
# For a chunk to come and its status to come back, but for a machine that is very busy.
_ANSWER_S = 0.2
# From the last good chunk to the zero command: its time, the overrun and the ramp [s].
_STOP_S = PERIOD_S + LIMITS.overrun_s + _DELTA_M / PERIOD_S / LIMITS.max_linear_mps2 + 0.02


@contextmanager
def cases(*, short: bool, scratch: Path, controller: Sequence[str] = (),
          **parameters: Any) -> Iterator[Sequence[Case]]:
    """Yield the cases; controller: arguments of Python for another one than the real one."""
    with rig(scratch) as running:
        running.start_simulator(camera_rate_hz=0.5)
        running.start_controller(controller, **{
            'command_timeout_s': LIMITS.command_timeout_s, 'overrun_s': LIMITS.overrun_s,
            **parameters})
        sender = Sender(running)
        yield [Case(name=name, injections=injections[short],
                    play=getattr(sender, f'play_{name}'))
               for name, injections in _INJECTIONS.items()]


class Sender:
    """Publishes good chunks and bad ones, and looks at what becomes of them."""

    def __init__(self, running: Rig) -> None:
        """Advertise the topic that a policy would have."""
        self._rig, self._watch = running, running.watch
        self._arm = Arm(running)
        self._publisher = self._watch.create_publisher(EndEffectorDeltaChunk, CHUNKS, 1)
        self._sequence = 0
        # Of the last good one.
        self._good = chunk_message(0, 0, 0.0, 0.0)
        self._started = False

    def play_malformed(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Send two of each kind in any order; the diagnostics must have counted them all."""
        self._begin()
        kinds = list(KINDS) * _OF_EACH_KIND
        before = self._counted()
        self._keep_moving()
        expected: Counter[str] = Counter()
        for kind in rng.permutation(kinds):
            reason, _ = KINDS[kind]
            trouble, rejected = self._refused(kind, rng)
            expected.update({reason: rejected})
            tally.judge(trouble, kind, reason)
        tally.judge(self._count_fault(before, expected) or self._motion_fault(), 'all of these')

    def play_tiny(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Send a chunk of denormal numbers, which is a good one: it is followed within limits."""
        self._begin()
        before = self._watch.controller.chunks_accepted
        message = self._next(0.0, 0.0)
        make_tiny(rng, message)
        self._publisher.publish(message)
        self._watch.until(lambda: self._watch.controller.chunks_accepted > before,
                          'an accepted chunk of denormal numbers')
        time.sleep(0.05)
        tally.judge(self._motion_fault(), 'denormal numbers')

    def play_second_publisher(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Let another node publish: everything is refused, and what moved stops."""
        self._begin()
        watch, before = self._watch, self._counted()
        other = Node('rogue')
        try:
            publisher = other.create_publisher(EndEffectorDeltaChunk, CHUNKS, 1)
            watch.until(lambda: publisher.get_subscription_count() >= 2, 'listeners of a rogue')
            rejected = watch.controller.chunks_rejected
            publisher.publish(chunk_message(
                self._sequence + 1000, self._now_ns(), _DELTA_M, 0.0))
            watch.until(lambda: watch.controller.chunks_rejected > rejected
                        or watch.controller.sequence >= self._sequence + 1000,
                        'a refused chunk of a rogue')
            trouble = self._named_fault('second_publisher')
            # The chunk of the one that was followed before is refused as well.
            rejected = watch.controller.chunks_rejected
            self._publisher.publish(self._next(_DELTA_M, 0.0))
            watch.until(lambda: watch.controller.chunks_rejected > rejected, 'a refused chunk')
            trouble = trouble or self._named_fault('second_publisher')
            self._arm.wait_for_silence()
            expected = {'second_publisher': watch.controller.chunks_rejected - before['all']}
        finally:
            other.destroy_node()
        watch.until(lambda: watch.count_publishers(CHUNKS) == 1, 'one publisher')
        trouble = trouble or self._count_fault(before, expected)
        self._keep_moving()
        tally.judge(trouble or self._motion_fault(), 'second publisher', 'second_publisher')

    def play_only_bad(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """After a good chunk send nothing but bad ones: the arm stops and stays at rest."""
        self._begin()
        waits = Waits(self._rig.children.pid('controller_node'))
        self._keep_moving()
        last_s = time_s(self._watch.controller.header.stamp)
        end_s = time.time() + 2.0 * _STOP_S
        while time.time() < end_s:
            kind = list(KINDS)[rng.integers(len(KINDS))]
            self._publisher.publish(self._spoiled(kind, rng))
            time.sleep(1.0 / _BAD_RATE_HZ)
        zero = self._arm.final_zero(lambda command: command.stamp_s > last_s)
        if zero is None:
            tally.miss('no zero command', 'bad chunks only')
            return
        took_s, trouble = zero.stamp_s - last_s, self._motion_fault()
        if took_s > _STOP_S + waits.longest_s():
            trouble = f'zero after {1e3 * took_s:.0f} ms, expected within {1e3 * _STOP_S:.0f} ms'
        if trouble:
            tally.miss(trouble, 'bad chunks only', zero_ms=1e3 * took_s)
        else:
            tally.hold(zero_ms=1e3 * took_s)

    # Sending

    def _begin(self) -> None:
        watch = self._watch
        if not self._started:
            watch.until(lambda: watch.poses and self._publisher.get_subscription_count() >= 2,
                        'the arm and its controller')
            watch.enable_at_last()
            self._started = True
        self._keep_moving()
        watch.forget()

    def _now_ns(self) -> int:
        return self._watch.get_clock().now().nanoseconds

    def _next(self, x_m: float, y_m: float) -> EndEffectorDeltaChunk:
        self._sequence += 1
        return chunk_message(self._sequence, self._now_ns(), x_m, y_m)

    def _keep_moving(self) -> None:
        """Send good chunks until one is accepted; the counts are known when this returns."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            self._send_good()
            answered_s = time.monotonic() + _ANSWER_S
            while time.monotonic() < answered_s:
                if self._watch.controller.sequence == self._good.sequence:
                    return
                time.sleep(0.001)
            if time.monotonic() > deadline_s:
                raise WaitedInVainError(
                    f'no chunk was accepted: {self._watch.controller.last_rejection}')

    def _send_good(self) -> None:
        """Publish a chunk that moves the tool towards the middle."""
        y_m = -_DELTA_M if self._watch.poses[-1][1][1] > 0.0 else _DELTA_M
        self._good = self._next(0.0, y_m)
        self._publisher.publish(self._good)

    def _spoiled(self, kind: str, rng: np.random.Generator) -> EndEffectorDeltaChunk:
        moment = Moment(now_ns=self._now_ns(), last_sequence=self._good.sequence,
                        last_observation_ns=time_ns(self._good.observation_stamp))
        message = self._next(_DELTA_M, 0.0)
        KINDS[kind][1](rng, message, moment)
        return message

    # Looking

    def _refused(self, kind: str, rng: np.random.Generator) -> tuple[str | None, int]:
        """
        Send a bad chunk and a good one; return what went wrong, and how many were rejected.

        The reader of the controller keeps one message, so a bad one may be lost to the good one:
        then it is sent again.
        """
        watch = self._watch
        while True:
            before = watch.controller
            self._publisher.publish(self._spoiled(kind, rng))
            time.sleep(_APART_S)
            self._send_good()
            watch.until(lambda: watch.controller.sequence == self._good.sequence,
                        'an accepted chunk after a bad one')
            after = watch.controller
            rejected = after.chunks_rejected - before.chunks_rejected
            if after.chunks_accepted - before.chunks_accepted > 1:
                return 'the bad chunk was accepted', rejected
            if rejected:
                return self._named_fault(KINDS[kind][0]), rejected

    def _named_fault(self, reason: str) -> str | None:
        found = self._watch.controller.last_rejection
        return None if found.startswith(f'{reason}: ') else f'expected {reason}, found {found!r}'

    def _counted(self) -> dict[str, int]:
        """Return the rejections by name that the controller's diagnostics tell from now on."""
        values = self._watch.diagnose('/controller_node')
        return {'all': int(values['chunks_rejected']), **{
            name.removeprefix('rejected_'): int(value) for name, value in values.items()
            if name.startswith('rejected_') and not name.startswith('rejected_pose')}}

    def _count_fault(self, before: dict[str, int], expected: dict[str, int]) -> str | None:
        after = self._counted()
        found = {name: count - before.get(name, 0) for name, count in after.items()
                 if name != 'all' and count != before.get(name, 0)}
        if found == {name: count for name, count in expected.items() if count}:
            return None
        return f'expected rejections {dict(expected)} in the diagnostics, found {found}'

    def _motion_fault(self) -> str | None:
        """Return what exceeded a limit or came of a bad chunk, None where nothing did."""
        for command in list(self._watch.commands):
            if command.linear[0] or command.linear[2]:
                return f'motion of a bad chunk: {command.linear.tolist()}'
        return next(iter(motion_faults(self._watch)), None)
