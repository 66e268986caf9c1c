"""Follows another player, such as `ros2 bag play`, by the stamps of the pictures that come."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import time

import numpy as np

from vla_policy_node.evaluation.policy_client import PolicyClientError
from vla_policy_node.evaluation.replay.instructing import Instructions
from vla_policy_node.evaluation.replay.live_figures import Playback
from vla_policy_node.evaluation.replay.live_figures import RECORDING_CLOCK
from vla_policy_node.evaluation.replay.live_figures import WALL_CLOCK
from vla_policy_node.evaluation.replay.live_node import LiveNode
from vla_policy_node.recorded import RecordedEpisode

NO_FRESH_IMAGE = 'no_fresh_image'

_POLL_S = 0.01
# A picture that came within this time says that playback goes on.
_FRESH_S = 0.5
# A player without a publisher for so long has ended; so much of the recording may be unheard.
_GONE_S = 1.0
_UNHEARD_S = 0.5


class Follower:
    """Gives the instruction of the episode that is being played, until the recording is over."""

    reading_s = waited_s = 0.0

    def __init__(
        self, node: LiveNode, instructions: Instructions, episodes: Sequence[RecordedEpisode], *,
        topic: str, compressed: bool, needs_clock: bool, wait_s: float,
        on_frame: Callable[[int], None],
    ) -> None:
        """
        Prepare to follow.

        episodes: of one bag. topic: of the camera that sets the time. compressed: whether it
        carries CompressedImage. needs_clock: whether the node hears /clock. wait_s: how long to
        wait for a player, and for one that pauses. on_frame: told how many steps have passed.
        """
        self._node = node
        self._instructions = instructions
        self._episodes = episodes
        self._topic = topic
        self._compressed = compressed
        self._needs_clock = needs_clock
        self._wait_s = wait_s
        self._on_frame = on_frame
        self._stamps = np.concatenate([episode.stamp_ns for episode in episodes])
        self._places = np.concatenate([episode.places for episode in episodes])
        # Stamp [ns] and monotonic time of receipt [s] of pictures of the episodes.
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self._current: RecordedEpisode | None = None
        self._over: list[RecordedEpisode] = []
        self._heard_publisher_s = time.monotonic()

    def run(self) -> str | None:
        """
        Follow to the end; returns why it came too early, None where it did not.

        Raises PolicyClientError where there is nobody to follow, and ProcessDiedError.
        """
        self._await_player()
        while True:
            self._node.check()
            stamp_ns, received_s = self._node.listener.picture()
            if self._stamps[0] <= stamp_ns <= self._stamps[-1]:
                self._last = stamp_ns, received_s
                self._first = self._first or self._last
            quiet_s = time.monotonic() - received_s
            if quiet_s < _FRESH_S:
                self._turn_to(self._episode_at(stamp_ns))
                self._on_frame(int(np.searchsorted(self._stamps, stamp_ns, side='right')))
            is_over, reason = self._is_over(stamp_ns, quiet_s)
            if is_over:
                if self._instructions.current is not None:
                    self._instructions.end(None if reason else stamp_ns)
                return reason
            time.sleep(_POLL_S)

    def frames(self) -> Mapping[int, tuple[RecordedEpisode, int]]:
        """Return stamp [ns] -> episode and step."""
        return {stamp_ns: (episode, step) for episode in self._episodes
                for step, stamp_ns in enumerate(episode.stamp_ns.tolist())}

    def playback(self, ended_early: str | None) -> Playback:
        """Return how it was played, as far as that is known."""
        published, span_s = None, None
        if self._first is not None:
            heard = np.searchsorted(self._stamps, [self._first[0], self._last[0]])
            first, last = self._places[heard]
            published = int((last - first + 1).sum())
            span_s = self._first[1], self._last[1]
        return Playback(
            clock=RECORDING_CLOCK if self._needs_clock else WALL_CLOCK, rate=None,
            frames_published=published, span_s=span_s, ended_early=ended_early)

    def _await_player(self) -> None:
        if np.any(np.diff(self._stamps) <= 0):
            raise PolicyClientError(
                'expected the stamps of a recording that another player plays to ascend, found a '
                'clock that was set back; let it be played here')
        self._node.watch_pictures(self._topic, compressed=self._compressed)
        self._node.client.wait_until(
            lambda: self._node.listener.picture() is not None, self._wait_s,
            f'pictures on {self._topic} of a player, such as ros2 bag play,')
        if self._needs_clock and not self._node.client.count_publishers('/clock'):
            raise PolicyClientError(
                'expected a player that publishes /clock, found pictures without: their stamps '
                'are old by any other clock; add --clock to ros2 bag play')

    def _turn_to(self, episode: RecordedEpisode | None) -> None:
        """Let the node carry out the instruction of an episode, or none."""
        current = self._instructions.current
        if current is not None and (episode is not self._current or current.has_ended):
            ending = self._instructions.end()
            if ending != NO_FRESH_IMAGE:    # after a pause it is given again
                self._over.append(self._current)
        if self._instructions.current is None and episode is not None and (
                episode not in self._over):
            self._current = episode
            self._instructions.begin(episode)

    def _episode_at(self, stamp_ns: int) -> RecordedEpisode | None:
        return next((episode for episode in self._episodes
                     if episode.stamp_ns[0] <= stamp_ns <= episode.stamp_ns[-1]), None)

    def _is_over(self, stamp_ns: int, quiet_s: float) -> tuple[bool, str | None]:
        """Return whether playback is over, and why that is too early, None where it is not."""
        left_s = 1e-9 * (int(self._stamps[-1]) - stamp_ns)
        if left_s <= 0.0:
            return True, None
        if self._node.client.count_publishers(self._topic):
            self._heard_publisher_s = time.monotonic()
        if time.monotonic() - self._heard_publisher_s > _GONE_S:
            return True, None if left_s < _UNHEARD_S else (
                f'the player ended {left_s:.1f} s before the end of the recording')
        if quiet_s > self._wait_s:
            return True, (f'no picture came for {self._wait_s:g} s, {left_s:.1f} s before the end '
                          'of the recording; playback was paused or cut off')
        return False, None
