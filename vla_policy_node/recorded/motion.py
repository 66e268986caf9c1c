"""
What was done over a period from any moment on, from chunks, velocities or poses.

A motion answers for times, not for messages, so that every choice of frames is served by the
same rule. NaN stands for what is not known: before the first and behind the last message, across
pauses longer than `max_gap_s`, and where a message holds a number that is not finite.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vla_policy_node import rotations
from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.recorded.config import PoseActions
from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.recorded.config import TwistActions
from vla_policy_node.recorded.messages import Column
from vla_policy_node.recordings import RecordedChunk

_PERIOD_TOLERANCE = 0.01


class Motion(Protocol):
    """
    What was done.

    stamped: whether times are stamps of headers, otherwise times of receipt. ends_ns: (E,) int64
    ascending, until when the last action of a task that was said to be done counts.
    """

    stamped: bool
    ends_ns: np.ndarray

    def over(self, times_ns: np.ndarray, period_s: float) -> np.ndarray:
        """Return the (N, 7) float64 canonical actions of a period from each of (N,) times on."""


def build_motion(
    column: Column, config: RecordedConfig, period_s: float, skipped: Counter[str],
) -> Motion:
    """Return the motion that the messages of the action topic say; its gripper may be NaN."""
    actions = config.actions
    if isinstance(actions, TwistActions):
        return TwistMotion(column, actions, config.max_gap_s)
    if isinstance(actions, PoseActions):
        return PoseMotion(column, actions, config.max_gap_s)
    return ChunkMotion(column, period_s, skipped)


class ChunkMotion:
    """
    The steps of chunks that were carried out: those that began before the next chunk came.

    A step counts from the chunk's observation stamp on, one period later for every further step.
    The action at a time is the step nearest to it, at most half a period away. A step that says
    terminate does not move, and ends the task.
    """

    def __init__(self, column: Column, period_s: float, skipped: Counter[str]) -> None:
        chunks: Sequence[RecordedChunk] = column.items
        order = np.argsort(column.received_ns, kind='stable')
        received = column.received_ns[order]
        gaps_s = np.diff(received, append=received[-1:]) * 1e-9
        self.stamped = all(chunk.observation_ns for chunk in chunks)
        rows: list[tuple[int, np.ndarray, bool]] = []
        for place, gap_s in zip(order, gaps_s, strict=True):
            chunk = chunks[place]
            if abs(chunk.period_s - period_s) > _PERIOD_TOLERANCE * period_s:
                skipped[f'chunk of deltas of {chunk.period_s:g} s, the policy acts in steps of '
                        f'{period_s:g} s'] += 1
                continue
            seen_ns = chunk.observation_ns if self.stamped else int(column.received_ns[place])
            rows.extend(_carried_out(chunk, gap_s, seen_ns))
        rows.sort(key=lambda row: row[0])
        self.times_ns = np.array([row[0] for row in rows], np.int64)
        self._actions = np.array([row[1] for row in rows], np.float64).reshape(-1, ACTION_DIM)
        self._actions[~np.isfinite(self._actions).all(axis=1)] = np.nan
        self.ends_ns = np.array(
            [row[0] + round(0.5e9 * period_s) for row in rows if row[2]], np.int64)

    def over(self, times_ns: np.ndarray, period_s: float) -> np.ndarray:
        """See Motion."""
        if not len(self.times_ns):
            return np.full((len(times_ns), ACTION_DIM), np.nan)
        place = nearest(self.times_ns, times_ns)
        near = np.abs(self.times_ns[place] - times_ns) <= 0.5e9 * period_s
        return np.where(near[:, None], self._actions[place], np.nan)


class _Path:
    """A pose over time, known within stretches that no fault interrupts."""

    def __init__(self, column: Column) -> None:
        times = column.times_ns()
        order = np.argsort(times, kind='stable')
        self.stamped = column.stamped
        self.ends_ns = np.zeros(0, np.int64)
        self.times_ns = times[order]
        self.values = column.values[order]

    def over(self, times_ns: np.ndarray, period_s: float) -> np.ndarray:
        """See Motion; the gripper is NaN."""
        if not len(self.times_ns):
            return np.full((len(times_ns), ACTION_DIM), np.nan)
        stop_ns = times_ns + round(1e9 * period_s)
        known = self.known(times_ns, stop_ns)
        before, after = self.at(times_ns), self.at(stop_ns)
        moved = np.concatenate(self.difference(before, after), axis=1)
        actions = np.full((len(times_ns), ACTION_DIM), np.nan)
        actions[:, :6] = np.where(known[:, None], moved, np.nan)
        return actions


class TwistMotion(_Path):
    """
    Velocities, each lasting until the next one but at most `hold_s`, then standstill.

    The action is the way covered over the period: translations add up, rotations follow one
    another about the fixed axes of the velocities' frame.
    """

    def __init__(self, column: Column, config: TwistActions, max_gap_s: float) -> None:
        super().__init__(column)
        self._hold_ns = round(1e9 * config.hold_s)
        self._gap_ns = round(1e9 * max_gap_s)
        faulty = ~np.isfinite(self.values).all(axis=1)
        velocities = np.where(faulty[:, None], 0.0, self.values)
        self._linear = velocities[:, :3] @ config.linear.to_metres.T
        self._angular = velocities[:, 3:] @ config.angular.to_radians.T
        pauses = np.diff(self.times_ns, prepend=self.times_ns[:1])
        self._faulty = faulty
        # Two moments are joined where the same number of faults and pauses lies before both.
        self._breaks = np.cumsum(faulty | (pauses > self._gap_ns))
        lasting_s = 1e-9 * np.minimum(pauses[1:], self._hold_ns)[:, None]
        ways = np.concatenate([np.zeros((1, 3)), self._linear[:-1] * lasting_s])
        self._place = np.cumsum(ways, axis=0)
        self._turned = _chained(rotations.from_vectors(self._angular[:-1] * lasting_s))

    def known(self, start_ns: np.ndarray, stop_ns: np.ndarray) -> np.ndarray:
        """Return (N,) bool, whether the velocities from start to stop are known."""
        first, last = (_newest(self.times_ns, times) for times in (start_ns, stop_ns))
        allowed = np.where(last == len(self.times_ns) - 1, self._hold_ns, self._gap_ns)
        return ((start_ns >= self.times_ns[0]) & ~self._faulty[first]
                & (self._breaks[first] == self._breaks[last])
                & (stop_ns - self.times_ns[last] <= allowed))

    def at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3) [m] and rotations (N, 4) since the first velocity."""
        place = _newest(self.times_ns, times_ns)
        since_s = 1e-9 * np.clip(times_ns - self.times_ns[place], 0, self._hold_ns)[:, None]
        turn = rotations.from_vectors(self._angular[place] * since_s)
        return (self._place[place] + self._linear[place] * since_s,
                rotations.multiply(turn, self._turned[place]))

    def difference(self, before: tuple, after: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Return the way (N, 3) and the rotation vector (N, 3) between two poses."""
        turn = rotations.multiply(after[1], rotations.conjugate(before[1]))
        return after[0] - before[0], rotations.to_vectors(turn)


class PoseMotion(_Path):
    """
    Poses, interpolated between neighbours: straight, and turning evenly the shorter way.

    The action is the difference between the poses at the end and at the beginning of the period.
    """

    def __init__(self, column: Column, config: PoseActions, max_gap_s: float) -> None:
        super().__init__(column)
        self._config = config
        norms = np.linalg.norm(self.values[:, 3:], axis=1, keepdims=True)
        faulty = ~np.isfinite(self.values).all(axis=1) | (np.abs(norms[:, 0] - 1.0) > 0.01)
        still = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        poses = np.where(faulty[:, None], still, self.values)
        self._place = poses[:, :3]
        self._turned = poses[:, 3:] / np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
        # Between two poses nothing is known where one is faulty or the pause is too long.
        pauses = np.diff(self.times_ns)
        self._unknown = faulty[1:] | faulty[:-1] | (pauses > 1e9 * max_gap_s)
        self._breaks = np.cumsum(self._unknown)

    def known(self, start_ns: np.ndarray, stop_ns: np.ndarray) -> np.ndarray:
        """Return (N,) bool, whether the poses from start to stop are known."""
        if len(self.times_ns) < 2:
            return np.zeros(len(start_ns), bool)
        # A period that ends with a pose does not need the next one.
        first, last = self._between(start_ns), self._between(stop_ns - 1)
        return ((start_ns >= self.times_ns[0]) & (stop_ns <= self.times_ns[-1])
                & ~self._unknown[first] & (self._breaks[first] == self._breaks[last]))

    def at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (N, 3), in the message's unit, and rotations (N, 4)."""
        if len(self.times_ns) < 2:
            count = len(times_ns)
            return np.zeros((count, 3)), np.tile((0.0, 0.0, 0.0, 1.0), (count, 1))
        first = self._between(times_ns)
        start, stop = self.times_ns[first], self.times_ns[first + 1]
        share = ((times_ns - start) / np.maximum(stop - start, 1))[:, None]
        place = self._place[first] + share * (self._place[first + 1] - self._place[first])
        turn = rotations.to_vectors(rotations.multiply(
            self._turned[first + 1], rotations.conjugate(self._turned[first])))
        return place, rotations.multiply(
            rotations.from_vectors(share * turn), self._turned[first])

    def difference(self, before: tuple, after: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Return the way (N, 3) [m] and the rotation vector (N, 3) [rad] between two poses."""
        moved = after[0] - before[0]
        back = rotations.conjugate(before[1])
        if self._config.expressed_in == 'tool':
            moved = rotations.rotate(back, moved)
            turn = rotations.multiply(back, after[1])
        else:
            turn = rotations.multiply(after[1], back)
        return (moved @ self._config.linear.to_metres.T,
                rotations.to_vectors(turn) @ self._config.angular.matrix(1.0).T)

    def _between(self, times_ns: np.ndarray) -> np.ndarray:
        return np.minimum(_newest(self.times_ns, times_ns), len(self.times_ns) - 2)


def nearest(ascending: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the (N,) places of the values nearest to (N,) wanted ones; the earlier of two."""
    later = np.clip(np.searchsorted(ascending, wanted), 1, len(ascending) - 1) if (
        len(ascending) > 1) else np.zeros(len(wanted), np.int64)
    earlier = np.maximum(later - 1, 0)
    closer = wanted - ascending[earlier] <= ascending[later] - wanted
    return np.where(closer, earlier, later)


def _newest(ascending: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the (N,) places of the last values not above (N,) wanted ones, at least 0."""
    return np.maximum(np.searchsorted(ascending, wanted, side='right') - 1, 0)


def _chained(turns: np.ndarray) -> np.ndarray:
    """Return the rotations (M + 1, 4) reached before and after each of (M, 4) turns in a row."""
    reached, reach = np.concatenate([[(0.0, 0.0, 0.0, 1.0)], turns]), 1
    while reach < len(reached):
        # Each row holds the product of `reach` turns up to it; joining doubles that.
        reached[reach:] = rotations.multiply(reached[reach:], reached[:-reach])
        reach *= 2
    return reached / np.linalg.norm(reached, axis=1, keepdims=True)


def _carried_out(
    chunk: RecordedChunk, gap_s: float, seen_ns: int,
) -> list[tuple[int, np.ndarray, bool]]:
    """Return time, action and end of the steps before the next chunk; all if none came."""
    count = len(chunk.actions)
    if gap_s > 0.0:
        count = min(count, max(1, round(gap_s / chunk.period_s)))
    rows = []
    for step in range(count):
        action = chunk.actions[step].copy()
        action[6] = np.clip(action[6], 0.0, 1.0)
        if chunk.terminate[step]:
            action[:6] = 0.0    # the controller does not move on such a step
        rows.append((seen_ns + round(step * chunk.period_s * 1e9), action,
                     bool(chunk.terminate[step])))
        if chunk.terminate[step]:
            break
    return rows
