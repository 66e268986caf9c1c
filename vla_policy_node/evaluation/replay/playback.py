"""Plays recorded episodes to a policy node, each behind its instruction."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from vla_policy_node.evaluation.replay.instructing import Instructions
from vla_policy_node.evaluation.replay.live_figures import Playback
from vla_policy_node.evaluation.replay.live_figures import RECORDING_CLOCK
from vla_policy_node.evaluation.replay.live_figures import WALL_CLOCK
from vla_policy_node.evaluation.replay.live_node import LiveNode
from vla_policy_node.evaluation.replay.player import Outlets
from vla_policy_node.evaluation.replay.player import PlayedFrames
from vla_policy_node.evaluation.replay.player import Player
from vla_policy_node.evaluation.replay.player import read_pictures
from vla_policy_node.evaluation.replay.raw_pictures import as_raw_image
from vla_policy_node.evaluation.replay.read_ahead import ReadAhead
from vla_policy_node.recorded import RecordedEpisode

# Pictures read before they are due: enough to hide a slow disk, few enough to be small.
_FRAMES_AHEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackSettings:
    """
    How episodes are played.

    topics: of the cameras, the first one sets the time. compressed: whether they carry
    CompressedImage, otherwise those that do are decoded. rate: seconds of the recording per
    second. use_sim_time: keep stamps and publish /clock. lead_s: further cameras begin so much
    before the first.
    """

    topics: Sequence[str]
    compressed: bool
    rate: float
    use_sim_time: bool
    lead_s: float


class OwnPlayback:
    """Plays by itself; what it did is known also when it was cut short."""

    def __init__(
        self, node: LiveNode, instructions: Instructions, episodes: Sequence[RecordedEpisode],
        settings: PlaybackSettings, on_frame: Callable[[int], None],
    ) -> None:
        """Prepare; on_frame: told how many steps were published."""
        self.reading_s = 0.0
        self.waited_s = 0.0
        self._node = node
        self._instructions = instructions
        self._episodes = episodes
        self._settings = settings
        self._on_frame = on_frame
        self._played = PlayedFrames()

    def run(self) -> None:
        """Play all episodes; raises PolicyClientError and ProcessDiedError."""
        settings = self._settings
        clock = self._node.clock_publisher() if settings.use_sim_time else None
        player = Player(Outlets(clock=clock, publish={
            topic: self._node.picture_publisher(topic, compressed=settings.compressed)
            for topic in settings.topics}), rate=settings.rate)
        self._played = player.played
        pictures = read_pictures(
            self._episodes, settings.topics, lead_s=settings.lead_s,
            adapt=None if settings.compressed else as_raw_image)
        with ReadAhead(pictures, _FRAMES_AHEAD) as ahead:
            done = 0
            for episode, group in groupby(ahead, key=itemgetter(0)):
                instruction = self._instructions.begin(episode)
                player.play(episode, map(itemgetter(1), group), goes_on=instruction.goes_on,
                            on_step=lambda step, done=done: self._on_frame(done + step + 1))
                self._instructions.end(self._played.newest_ns)
                done += len(episode)
        self.reading_s, self.waited_s = ahead.busy_s, ahead.waited_s

    def frames(self) -> Mapping[int, tuple[RecordedEpisode, int | None]]:
        """Return stamp [ns] as published -> episode and step; None for what is no step."""
        return self._played.frames

    def playback(self, ended_early: str | None) -> Playback:
        """Return how it was played."""
        settings = self._settings
        return Playback(
            clock=RECORDING_CLOCK if settings.use_sim_time else WALL_CLOCK, rate=settings.rate,
            frames_published=self._played.published, publish_delay_ms=self._played.delay_ms,
            ended_early=ended_early)
