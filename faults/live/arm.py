"""Brings the simulated arm into motion, and tells what it did afterwards."""

from bisect import bisect_left
from collections.abc import Callable
import time

import numpy as np

from faults.live.rig import COMMAND_RATE_HZ
from faults.live.rig import COMMAND_TIMEOUT_S
from faults.live.rig import Rig
from faults.live.rig import SPEED_MPS
from faults.live.watch import Seen
from faults.live.watch import WaitedInVainError
from vla_policy_node.control import ControlParameters
from vla_policy_node.nodes.conversions import time_s

# From the fault to the first zero command [s].
DEADLINE_S = 0.1 + 1.0 / COMMAND_RATE_HZ
# Ten times the deadline is as good as never.
NEVER_S = 10.0 * DEADLINE_S
# Zeros are sent every period.
_SILENCE_S = 0.1
# So much may the tool move over so many poses at rest.
_REST_M, _PLACES = 0.001, 3
# From the end of motion to the zero command: the ramp, and the periods it begins and ends in [s].
RAMP_S = SPEED_MPS / ControlParameters().max_linear_mps2 + 2.0 / COMMAND_RATE_HZ
# From a camera frame to the zero command where no newer frame comes [s].
LONGEST_S = COMMAND_TIMEOUT_S + RAMP_S
# A camera's clock may be ahead by so much [s].
_SKEW_S = ControlParameters().max_clock_skew_s


class Arm:
    """The arm of a rig whose simulator, policy and controller have been started."""

    def __init__(self, running: Rig, instruction: str = 'go') -> None:
        """Prepare; nothing moves yet."""
        self._rig, self._watch = running, running.watch
        self._instruction = instruction
        self._started = False

    def set_moving(self, delay_s: float = 0.0) -> None:
        """Return while the arm moves, so long [s] after it began; the watch forgets the rest."""
        watch = self._watch
        if not self._started:
            watch.until(lambda: watch.policy is not None
                        and watch.policy.state == watch.policy.IDLE, 'an active policy node')
            watch.until(lambda: watch.poses, 'a tool pose')
        watch.enable_at_last()
        if not self._started or watch.policy.state == watch.policy.IDLE:
            # An instruction lasts for some minutes only.
            watch.instruct(self._instruction)
            self._started = True
        # To and fro about the middle, where there is room on either side.
        self._rig.control.y_mps = -SPEED_MPS if watch.poses[-1][1][1] > 0.0 else SPEED_MPS
        watch.until(self._moves_well, 'a moving arm')
        time.sleep(delay_s)
        watch.until(self._moves_well, 'a moving arm')
        watch.forget()

    def instruct_again(self) -> None:
        """Let the next motion begin with an instruction: the policy has lost the last one."""
        self._started = False

    def _moves_well(self) -> bool:
        latest = self._watch.commands[-3:]
        return self._watch.is_moving and len(latest) == 3 and not any(
            command.is_zero for command in latest)

    def final_zero(self, when: Callable[[Seen], bool]) -> Seen | None:
        """
        Return the zero command after which only zeros and silence came.

        :param when: true for the commands that a zero is waited for among.
        :return: None if no zero came; the silence has begun when this returns.
        """
        try:
            self._watch.until(
                lambda: any(command.is_zero and when(command)
                            for command in list(self._watch.commands)),
                'a zero command', NEVER_S)
        except WaitedInVainError:
            return None
        self.wait_for_silence()
        zero = None
        for command in reversed(self._watch.commands):
            if not command.is_zero:
                break
            zero = command
        return zero

    def wait_for_silence(self) -> None:
        """Wait until no command comes any more."""
        self._watch.until(
            lambda: time.time() - self._watch.commands[-1].received_s > _SILENCE_S,
            'silence after the zeros')

    def motion_after(self, zero: Seen) -> str | None:
        """Return what moved after a zero command, None where nothing did."""
        commands = list(self._watch.commands)
        for command in commands[commands.index(zero):]:
            if not command.is_zero:
                return (f'{command.linear.tolist()} m/s commanded '
                        f'{command.received_s - zero.received_s:.3f} s after the zero')
        return None

    def drift(self) -> str | None:
        """Return by how much the tool moved from now on, None where it did not."""
        watch, since_s = self._watch, time.time()
        places = watch.until(lambda: self._places(since_s), 'tool poses while at rest')
        moved_m = float(np.ptp(np.array(places), axis=0).max())
        return None if moved_m < _REST_M else f'the tool moved {1e3 * moved_m:.2f} mm at rest'

    def _places(self, since_s: float) -> list[np.ndarray]:
        places = [place for seen_s, place in list(self._watch.poses) if seen_s > since_s]
        return places if len(places) >= _PLACES else []

    def unfounded_motion(self, extra_s: float = 0.0,
                         skip: Callable[[Seen], bool] = lambda _: False) -> str | None:
        """
        Return which command no fresh action accounts for, None where there is none.

        An action is fresh while its camera frame is not older than the timeout; the ramp after it
        is granted, and `extra_s` for a controller that had to wait for a processor.
        """
        commands = list(self._watch.commands)
        self._wait_for_chunks(commands[-1].stamp_s)
        seen = sorted(time_s(chunk.observation_stamp) for chunk in list(self._watch.chunks))
        longest_s = LONGEST_S + extra_s
        for command in commands:
            if command.is_zero or skip(command):
                continue
            place = bisect_left(seen, command.stamp_s - longest_s)
            if place == len(seen) or seen[place] > command.stamp_s + _SKEW_S:
                latest = max((stamp for stamp in seen if stamp <= command.stamp_s), default=None)
                age = 'none' if latest is None else f'{command.stamp_s - latest:.3f} s old'
                return (f'motion at {command.stamp_s:.3f} s, expected an observation at most '
                        f'{longest_s:.3f} s old, found {age}')
        return None

    def _wait_for_chunks(self, until_s: float) -> None:
        """Wait until the watch has every action behind the commands stamped up to a time [s]."""
        watch = self._watch
        watch.until(lambda: time_s(watch.controller.header.stamp) >= until_s, 'a newer status')
        sequence = watch.controller.sequence
        watch.until(lambda: watch.chunks and watch.chunks[-1].sequence >= sequence,
                    'the action behind the commands')
