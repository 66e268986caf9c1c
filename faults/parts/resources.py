"""
Memory, files, disk space and parameters are taken away or changed while the simulated arm moves.

- Out of memory, as torch and Python raise it, when the policy is loaded: the transition is
  refused with the reason, nothing moves. In the middle of a run: the node unloads and says why,
  the arm stops within 100 ms and one period after the last action, and moves again only once the
  node has been configured, activated and instructed again.
- The checkpoint's folder deleted, its weights replaced by another file, overwritten or cut to
  nothing: before a picture that does not change, the policy goes on with the very tokens of before
  or says what is wrong and gives none. Loading it again is refused.
- No byte free where the nodes log: they go on, and stop as they should when the policy stops.
  A bag that does not fit on the disk is an error that says so.
- Parameters set while moving: refused, and read back unchanged; use_sim_time, which ROS itself
  changes, takes the clock away and so stops the arm until it is set back.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import ExitStack
from functools import partial
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rcl_interfaces.srv import GetParameters
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from vla_msgs.msg import EndEffectorDeltaChunk

from faults.live.arm import Arm
from faults.live.arm import DEADLINE_S
from faults.live.camera import TOPIC
from faults.live.full_disk import full_disk_prefix
from faults.live.motion import motion_faults
from faults.live.rig import Rig
from faults.live.rig import rig
from faults.live.stand_in import ERRORS
from faults.live.usage import Waits
from faults.live.watch import PATIENCE_S
from faults.tally import Case
from faults.tally import Tally
from vla_policy_node import bringup
from vla_policy_node.evaluation.policy_client import PolicyClientError
from vla_policy_node.nodes.conversions import time_s

# name -> faults in the full and in the short form.
_INJECTIONS = {
    'memory_at_load': (15, 1), 'memory_in_mid_run': (60, 2), 'parameters': (60, 4),
    'sim_time': (10, 1), 'log_disk': (10, 1), 'bag_disk': (1, 1), 'checkpoint': (12, 1)}
# Every one of them would speed up, prolong or redirect the motion.
_CONTROLLER_PARAMETERS = {
    'max_linear_mps': 2.0, 'max_linear_mps2': 50.0, 'command_timeout_s': 5.0, 'overrun_s': 1.0,
    'workspace_enabled': False, 'dry_run': True, 'command_rate_hz': 10.0, 'base_frame': 'world',
    'output_mode': 'pose', 'max_delta_m': 1.0, 'max_clock_skew_s': 1.0}
_POLICY_PARAMETERS = {
    'image_timeout_s': 10.0, 'max_clock_skew_s': 1.0, 'rate_hz': 1000.0, 'checkpoint': '/nowhere',
    'device': 'cuda', 'quantization': 'none'}
# What is done to the files of a checkpoint that is in use.
_DAMAGES = ('deleted', 'replaced', 'overwritten', 'truncated')
# So many actions are looked at afterwards: the first ones may be of before.
_CHUNKS_AFTER = 5
_LOADING_S = 250.0
# How long the shipped policy takes is not what is looked at here.
_PATIENT = {'command_timeout_s': 2.0, 'overrun_s': 0.5}
_BAG = """
import sys
from pathlib import Path
from vla_policy_node.evaluation.recording import Recorded, write_bag
data = bytes(range(256)) * 400
try:
    write_bag(Path(sys.argv[1]) / 'bag', {'/text': 'std_msgs/msg/String'}, [
        Recorded(topic='/text', received_ns=i, data=data) for i in range(100)])
except OSError as error:
    sys.exit(f'{type(error).__name__}: {error}')
"""


@contextmanager
def cases(*, short: bool, scratch: Path) -> Iterator[Sequence[Case]]:
    """Yield the cases."""
    with ExitStack() as stack:
        table = Resources(stack, scratch)
        yield [Case(name=name, injections=injections[short], play=getattr(table, f'play_{name}'))
               for name, injections in _INJECTIONS.items()]


class Resources:
    """Takes things away from the nodes of a rig; each kind of rig is set up when it is needed."""

    def __init__(self, stack: ExitStack, scratch: Path) -> None:
        """Prepare; no process runs yet."""
        self._stack, self._scratch = stack, scratch
        self._name = ''
        # Whether the checkpoint in use must be made whole before the next episode.
        self._damaged = False

    def _use(self, name: str, start: Callable[[Rig], None]) -> None:
        """Set up a rig in place of the one before, unless it is the one that is there."""
        if name == self._name:
            return
        self._stack.close()
        self._name = name
        self._rig = self._stack.enter_context(rig(self._scratch / name, camera_topic=TOPIC))
        self._camera = self._stack.enter_context(self._rig.camera())
        self._watch, self._arm = self._rig.watch, Arm(self._rig)
        self._rig.start_simulator(camera_rate_hz=0.5)
        start(self._rig)

    def _usual(self) -> None:
        def start(running: Rig) -> None:
            running.start_policy(autostart=False)
            running.start_controller()
            running.watch.configure(PATIENCE_S)
            running.watch.activate(PATIENCE_S)
        self._use('usual', start)

    # Memory

    def play_memory_at_load(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Configure without memory."""
        self._usual()
        watch, error = self._watch, 1 + number % (len(ERRORS) - 1)
        watch.enable_at_last()
        watch.deactivate(PATIENCE_S)
        watch.cleanup(PATIENCE_S)
        self._settle()
        sent = watch.controller.commands_sent
        self._rig.control.error = float(error)
        trouble = self._configured('memory') if error != 2 else self._configured('')
        self._rig.control.error = 0.0
        if watch.controller.commands_sent != sent:
            trouble = trouble or 'commands were sent without a policy'
        watch.configure(PATIENCE_S)
        watch.activate(PATIENCE_S)
        tally.judge(trouble, f'error {error} while loading')

    def _configured(self, told: str) -> str | None:
        """Return that loading went well although it should not, or gave no reason."""
        watch = self._watch
        try:
            watch.configure(PATIENCE_S)
        except PolicyClientError:
            log = self._rig.children.log('policy_node').read_text(errors='replace')
            refused = [line for line in log.splitlines() if 'configure refused: ' in line]
            if not refused or told not in refused[-1]:
                return f'expected a reason with {told!r}, found {refused[-1:]}'
            asked_s = time.time()
            watch.until(lambda: watch.policy_heard_s[-1] > asked_s, 'a status')
            if watch.policy.state != watch.policy.UNCONFIGURED:
                return f'expected an unconfigured node, found {watch.policy.state_text}'
            return None
        return 'configured without memory'

    def play_memory_in_mid_run(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Run out of memory while moving."""
        self._usual()
        watch, error = self._watch, 1 + number % (len(ERRORS) - 1)
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        waits = Waits(self._rig.children.pid('controller_node'))
        began_s = time.time()
        self._rig.control.error = float(error)
        watch.until(lambda: watch.policy.state == watch.policy.UNCONFIGURED,
                    'a policy node that has unloaded')
        self._rig.control.error = 0.0
        told = watch.policy.state_text
        trouble, zero_ms = self._stopped(began_s, waits)
        if 'memory' not in told.lower() and 'MemoryError' not in told:
            trouble = trouble or f'expected a text about memory, found {told}'
        watch.configure(PATIENCE_S)
        watch.activate(PATIENCE_S)
        self._arm.instruct_again()
        _count(tally, trouble, f'error {error} in inference', zero_ms)

    def _stopped(self, began_s: float, waits: Waits) -> tuple[str | None, float]:
        """Return what is wrong with the stop, and how long after the last action it came [ms]."""
        zero = self._arm.final_zero(lambda command: command.stamp_s > began_s)
        if zero is None:
            return 'no zero command', 1e3 * DEADLINE_S * 10.0
        sent = [time_s(chunk.header.stamp) for chunk in list(self._watch.chunks)]
        took_s = zero.stamp_s - max([began_s, *(s for s in sent if s < zero.stamp_s)])
        trouble = self._arm.drift() or next(iter(motion_faults(self._watch)), None)
        if took_s > DEADLINE_S + waits.longest_s():
            trouble = (f'zero {1e3 * took_s:.1f} ms after the last action, expected within '
                       f'{1e3 * DEADLINE_S:.0f} ms')
        return trouble, 1e3 * took_s

    def _settle(self) -> None:
        """Wait until the zeros after a stop are over."""
        watch = self._watch
        watch.until(lambda: watch.controller.state == watch.controller.WAITING,
                    'a controller at rest')
        asked_s = time.time()
        watch.until(lambda: watch.statuses[-1][0] > asked_s, 'a newer status')

    # Parameters

    def play_parameters(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Set a parameter of each node while moving."""
        self._usual()
        for node, table in (('/controller_node', _CONTROLLER_PARAMETERS),
                            ('/policy_node', _POLICY_PARAMETERS)):
            name = list(table)[rng.integers(len(table))]
            self._arm.set_moving()
            before = self._parameter(node, name)
            refused = not self._set(node, name, table[name])
            time.sleep(0.1)
            trouble = None
            if not refused or self._parameter(node, name) != before:
                trouble = f'{node} took {name} {table[name]}'
            trouble = trouble or self._arm.unfounded_motion() or next(
                iter(motion_faults(self._watch)), None)
            tally.judge(trouble, f'{node} {name} {table[name]}', 'read_only')

    def play_sim_time(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Take the clock of the controller away while moving, then give it back."""
        self._usual()
        watch = self._watch
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        began_s = time.time()
        self._set('/controller_node', 'use_sim_time', True)
        zero = self._arm.final_zero(lambda command: command.received_s > began_s)
        trouble = 'no zero command' if zero is None else self._arm.drift()
        self._set('/controller_node', 'use_sim_time', False)
        watch.until(lambda: watch.is_moving, 'motion once the clock is back')
        trouble = trouble or next(iter(motion_faults(watch, by_receipt=True)), None)
        tally.judge(trouble, 'use_sim_time without a /clock')

    def _set(self, node: str, name: str, value: Any) -> bool:
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg()])
        client = self._watch.client(SetParameters, f'{node}/set_parameters')
        return self._watch.ask(client, request, PATIENCE_S).results[0].successful

    def _parameter(self, node: str, name: str) -> Any:
        client = self._watch.client(GetParameters, f'{node}/get_parameters')
        return self._watch.ask(client, GetParameters.Request(names=[name]), PATIENCE_S).values[0]

    # Disks

    def play_log_disk(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Stop the policy while policy and controller cannot log a word."""
        self._use('log_disk', self._start_without_disk)
        self._arm.set_moving(rng.uniform(0.0, 0.1))
        waits = Waits(self._rig.children.pid('controller_node'))
        began_s = time.time()
        self._rig.children.signal('policy_node', signal.SIGSTOP)
        trouble, zero_ms = self._stopped(began_s, waits)
        self._rig.children.signal('policy_node', signal.SIGCONT)
        self._watch.until(lambda: self._watch.is_moving, 'motion once the policy goes on')
        _count(tally, trouble, 'no byte free for logs', zero_ms)

    def _start_without_disk(self, running: Rig) -> None:
        folder = self._scratch / 'full_logs'
        prefix = full_disk_prefix(folder)
        running.start_policy(prefix=prefix, log_folder=folder)
        running.start_controller(prefix=prefix, log_folder=folder)

    def play_bag_disk(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Write a bag where no byte is free."""
        folder = self._scratch / 'full_bags'
        ran = subprocess.run(
            [*full_disk_prefix(folder), sys.executable, '-c', _BAG, str(folder)],
            capture_output=True, text=True, timeout=PATIENCE_S)
        told = ran.stderr.strip().splitlines()[-1:]
        held = ran.returncode == 1 and bool(told) and 'No space left' in told[0]
        tally.judge(None if held else f'exit code {ran.returncode}, {told}',
                    'no byte free for a bag')

    # Checkpoints

    def play_checkpoint(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Damage the checkpoint in use; nothing is done by weights that were never checked."""
        folder, damage = self._scratch / 'copied_checkpoint', _DAMAGES[number % len(_DAMAGES)]
        self._use('checkpoint', partial(self._start_shipped, folder))
        if self._damaged:
            self._restore(folder)
        watch, self._damaged = self._watch, True
        watch.enable_at_last()
        watch.instruct(duration_s=600.0)
        tokens = list(self._next_chunk().token_ids)
        _damage(folder, damage)
        trouble = self._changed_tokens(tokens) or next(iter(motion_faults(watch)), None)
        if not self._rig.children.has_ended('policy_node'):
            watch.deactivate(PATIENCE_S)
            watch.cleanup(PATIENCE_S)
            trouble = trouble or self._configured('')
        tally.judge(trouble, f'checkpoint {damage}')

    def _next_chunk(self) -> EndEffectorDeltaChunk:
        watch = self._watch
        watch.forget()
        before = watch.chunks[-1:]
        watch.until(lambda: watch.chunks[-1:] != before, 'an action of the shipped policy')
        return watch.chunks[-1]

    def _changed_tokens(self, tokens: list[int]) -> str | None:
        """Return which other tokens came; None for those of before, or a reason for none."""
        watch, known = self._watch, len(self._watch.chunks)
        told = (watch.policy.DECODE_FAILED, watch.policy.FAULT, watch.policy.IDLE)
        deadline_s = time.monotonic() + PATIENCE_S
        while (len(watch.chunks) < known + _CHUNKS_AFTER and watch.policy.state not in told
               and not self._rig.children.has_ended('policy_node')):
            if time.monotonic() > deadline_s:
                return f'neither an action nor a reason, found {watch.policy.state_text}'
            time.sleep(0.02)
        for chunk in watch.chunks[known:]:
            if list(chunk.token_ids) != tokens:
                return f'expected tokens {tokens}, found {list(chunk.token_ids)}'
        ended = self._rig.children.has_ended('policy_node')
        return 'the policy process died of it' if ended else None

    def _restore(self, folder: Path) -> None:
        watch = self._watch
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_shipped(), folder)
        if self._rig.children.has_ended('policy_node'):
            self._rig.children.kill('policy_node')
            watch.policy = None
            self._start_policy_of(folder, self._rig)
        else:
            watch.configure(_LOADING_S)
            watch.activate(PATIENCE_S)
        self._wait_for_policy()

    def _wait_for_policy(self) -> None:
        watch = self._watch
        watch.until(lambda: watch.policy is not None and watch.policy.state == watch.policy.IDLE,
                    'an active policy node', _LOADING_S)

    def _start_shipped(self, folder: Path, running: Rig) -> None:
        shutil.copytree(_shipped(), folder)
        self._camera.behave(lambda number, now_ns: [(now_ns, 90)])
        self._start_policy_of(folder, running)
        running.start_controller(**_PATIENT)
        self._wait_for_policy()

    def _start_policy_of(self, folder: Path, running: Rig) -> None:
        process = bringup.node_process(
            'policy_node', checkpoint=str(folder), autostart=True, image_timeout_s=1.0)
        command = process.command()
        at = command.index('--ros-args') + 1
        command[at:at] = ['-r', f'~/image:={running.camera_topic}']
        running.children.start('policy_node', command, orphan_signal=signal.SIGKILL)


def _count(tally: Tally, trouble: str | None, given: str, zero_ms: float) -> None:
    if trouble:
        tally.miss(trouble, given, zero_ms=zero_ms)
    else:
        tally.hold(zero_ms=zero_ms)


def _shipped() -> Path:
    return bringup.share_directory() / 'models' / 'tabletop'


def _damage(folder: Path, damage: str) -> None:
    weights = folder / 'model.safetensors'
    if damage == 'deleted':
        shutil.rmtree(folder)
    elif damage == 'truncated':
        os.truncate(weights, 0)
    else:
        # The same numbers at other places: they would go through every calculation.
        content = weights.read_bytes()
        start = 8 + int.from_bytes(content[:8], 'little')
        numbers = np.frombuffer(content[start:], np.uint16)[::-1].tobytes()
        place = weights if damage == 'overwritten' else folder / 'other'
        with place.open('r+b' if damage == 'overwritten' else 'wb') as stream:
            stream.write(content[:start] + numbers)
        os.replace(place, weights)
