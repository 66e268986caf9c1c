"""A decode that fails in motion: an error of that name, no chunk, and the controller holds."""

import numpy as np
import torch

from faults.given_model import GivenModel
from faults.given_model import prompt_inputs
from faults.motion_oracle import MotionOracle
from faults.motion_oracle import Robot
from faults.parts.raw_images import Image
from faults.parts.token_schemes import Scheme
from faults.parts.token_schemes import VOCABULARY
from faults.tally import Case
from faults.tally import Tally
from faults.worker_seat import Outcome
from faults.worker_seat import WorkerSeat
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.control import Chunk
from vla_policy_node.control import ControlParameters
from vla_policy_node.control import MotionController
from vla_policy_node.nodes.inference_worker import Failure
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.types import ActionChunk

_TICK_S = 0.01
_PERIOD_S = 0.1
_BAD = (np.nan, np.inf, -np.inf)


def holding_case(scheme: Scheme, space: ActionSpace, injections: int) -> Case:
    """Return the case, for one decoder that all episodes share."""
    return Case(name='failed_decode_holds', injections=injections,
                play=_Robot(scheme, space).play)


class _Robot:
    """A model, the worker around it, and a controller that follows what is published."""

    def __init__(self, scheme: Scheme, space: ActionSpace) -> None:
        self._scheme = scheme
        self._space = space
        self._model = GivenModel(VOCABULARY, torch.tensor(scheme.tokenizer.choice_ids))
        self._decoder = ConstrainedDecoder(self._model, scheme.tokenizer)
        self._inputs = prompt_inputs()
        self._frame = Image(height=1, width=1, step=3, encoding='rgb8', data=b'\1\2\3')

    def play(self, number: int, rng: np.random.Generator, tally: Tally) -> None:
        """Get into motion, then let every decode fail until nothing is sent any more."""
        limits = ControlParameters(command_period_s=_TICK_S, command_timeout_s=0.3)
        run = _Run(limits)
        with WorkerSeat(lambda _: self._infer()) as seat:
            trouble = None
            for _ in range(3):
                self._model.rows = self._rows(rng)
                trouble = trouble or run.take(seat.show(self._frame)) or run.ticks()
            start_s = run.robot.mono_s
            while trouble is None and run.robot.mono_s < start_s + 2.0 and not run.silent:
                self._model.rows = self._bad_rows(rng)
                trouble = _failure_fault(seat.show(self._frame)) or run.ticks()
        if trouble is None and not run.silent:
            trouble = 'not at rest and silent 2 s after the first failed decode'
        if trouble is None:
            tally.hold(Failure.DECODE_FAILED.value, zero_ms=1e3 * (run.zero_s - start_s))
        else:
            tally.miss(trouble)

    def _infer(self) -> ActionChunk:
        return build_chunk(
            self._decoder.decode(self._inputs), self._scheme.tokenizer, self._space, {})

    def _rows(self, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((7, VOCABULARY), np.float32))

    def _bad_rows(self, rng: np.random.Generator) -> torch.Tensor:
        rows = self._rows(rng)
        legal = self._scheme.tokenizer.token_ids
        rows[rng.integers(7), legal[rng.integers(len(legal))]] = _BAD[rng.integers(len(_BAD))]
        return rows


class _Run:
    """A controller with a robot and the oracle, fed with chunks of a policy."""

    def __init__(self, limits: ControlParameters) -> None:
        self.robot = Robot(np.array([0.5, 0.0, 0.3]))
        self.zero_s: float | None = None
        self._limits = limits
        self._oracle = MotionOracle(limits, self.robot)
        self._controller = MotionController(limits)
        self._controller.set_enabled(True)
        self._controller.tick(self.robot.ros_s, self.robot.mono_s)
        self._sequence = 0
        self._fresh_until_s = -np.inf
        self.silent = False

    def take(self, outcome: Outcome) -> str | None:
        """Give a published chunk to the controller; return what went wrong."""
        if outcome.failure is not None:
            return f'a good frame failed: {outcome.reason}'
        self._sequence += 1
        rejection = self._controller.accept(Chunk(
            frame='base', sequence=self._sequence, observation_stamp_s=self.robot.ros_s,
            period_s=_PERIOD_S, deltas=outcome.chunk.actions, terminate=(False,),
            publisher='policy'), self.robot.ros_s, self.robot.mono_s)
        self._fresh_until_s = self.robot.mono_s + self._limits.command_timeout_s
        self.zero_s = None
        return None if rejection is None else f'a good chunk was refused: {rejection}'

    def ticks(self) -> str | None:
        """Let the time of one action pass; return what is wrong with the commands."""
        for _ in range(round(_PERIOD_S / _TICK_S)):
            self.robot.wait(_TICK_S)
            self._controller.update_pose(
                self.robot.position, (1.0, 0.0, 0.0, 0.0), self.robot.ros_s)
            command = self._controller.tick(self.robot.ros_s, self.robot.mono_s)
            self.robot.follow(command)
            trouble = self._oracle.fault(
                command, _TICK_S, may_move=self.robot.mono_s <= self._fresh_until_s)
            if trouble:
                return trouble
            self.silent = command is None
            at_rest = command is None or not (command.linear.any() or command.angular.any())
            if at_rest and self.zero_s is None:
                self.zero_s = self.robot.mono_s
        return None


def _failure_fault(outcome: Outcome) -> str | None:
    if outcome.failure is not Failure.DECODE_FAILED:
        return f'expected a failed decode, found {outcome.failure} {outcome.reason}'
    return 'a chunk was published for a failed decode' if outcome.published else None
