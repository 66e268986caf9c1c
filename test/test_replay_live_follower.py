"""Whoever follows another player gives each episode's instruction while it is being played."""

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_msgs')

from replay_live_fakes import CONFIG  # noqa: E402
from replay_live_fakes import messages  # noqa: E402
from replay_live_fakes import write_bag  # noqa: E402

from vla_policy_node.evaluation.policy_client import PolicyClientError  # noqa: E402
from vla_policy_node.evaluation.replay import follower  # noqa: E402
from vla_policy_node.evaluation.replay.follower import Follower  # noqa: E402
from vla_policy_node.recorded import read_bags  # noqa: E402
from vla_policy_node.recorded import RecordedConfig  # noqa: E402
from vla_policy_node.recorded import RecordedEpisode  # noqa: E402

TOPIC = '/camera/image_raw'
Picture = tuple[int, float]


class FakeNode:
    """
    Hears a picture more at every look; is its own client and listener.

    pictures: stamps [ns], or how old [s] the picture before has become.
    """

    def __init__(self, pictures: list[int | float], clocks: int = 1) -> None:
        """Start with a player that is there until all its pictures were heard."""
        self.client = self.listener = self
        self.watched = False
        self._clocks = clocks
        self._pictures = self._heard(pictures)
        self._newest: Picture | None = None
        self.is_over = False

    def _heard(self, pictures: list[int | float]) -> Iterator[Picture]:
        stamp_ns = 0
        for each in pictures:
            stamp_ns, age_s = (each, 0.0) if isinstance(each, int) else (stamp_ns, each)
            yield stamp_ns, time.monotonic() - age_s

    def check(self) -> None:
        """Do nothing; the process runs."""

    def watch_pictures(self, topic: str, *, compressed: bool) -> None:
        """Note that somebody listens."""
        self.watched = True

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait no longer than it takes to look once."""
        if not condition():
            raise PolicyClientError(f'expected {what}, found none')

    def count_publishers(self, topic: str) -> int:
        """Return one for the player's pictures as long as there are any."""
        return self._clocks if topic == '/clock' else not self.is_over

    def picture(self) -> Picture | None:
        """Return the next picture, the last one again in the end."""
        found = next(self._pictures, None)
        self.is_over = found is None
        self._newest = found or self._newest
        return self._newest


class FakeInstructions:
    """Keeps what was given; ends: what `end` says, in order, else that it was cancelled."""

    def __init__(self, ends: list[str], broken_off_after: int) -> None:
        """Take what the node will do: end an instruction when it was looked at so often."""
        self.given: list[str] = []
        self.waited_for: list[int | None] = []
        self._ends = ends
        self._patience = broken_off_after
        self._looks = 0
        self._runs = False

    @property
    def current(self) -> 'FakeInstructions | None':
        """Return itself while an instruction is carried out."""
        return self if self._runs else None

    @property
    def has_ended(self) -> bool:
        """Whether the node ended it by itself."""
        self._looks += 1
        return bool(self._ends) and self._looks > self._patience

    def begin(self, episode: RecordedEpisode) -> None:
        """Take an instruction."""
        self.given.append(episode.instruction)
        self._runs, self._looks = True, 0

    def end(self, newest_ns: int | None = None) -> str:
        """Say how it ended."""
        self._runs = False
        self.waited_for.append(newest_ns)
        return self._ends.pop(0) if self._ends else 'canceled'


@pytest.fixture
def episodes(tmp_path: Path, monkeypatch) -> list[RecordedEpisode]:
    """Two episodes of seven frames, ten seconds apart; time passes fast."""
    monkeypatch.setattr(follower, '_POLL_S', 0.0)
    monkeypatch.setattr(follower, '_GONE_S', 0.05)
    path = write_bag(tmp_path / 'bag', messages(7), messages(
        7, first=50, at_s=10.0, text='pull'))
    config = RecordedConfig.model_validate({**CONFIG, 'frames': {}})
    return list(read_bags([path], config, period_s=0.2).episodes)


def follow(
    episodes: list[RecordedEpisode], pictures: list[int | float], *, clocks: int = 1,
    ends: tuple[str, ...] = (), broken_off_after: int = 0, wait_s: float = 5.0,
) -> tuple[str | None, FakeInstructions, Follower, list[int]]:
    instructions, done = FakeInstructions(list(ends), broken_off_after), []
    found = Follower(FakeNode(pictures, clocks), instructions, episodes, topic=TOPIC,
                     compressed=False, needs_clock=True, wait_s=wait_s, on_frame=done.append)
    return found.run(), instructions, found, done


def stamps(*episodes: RecordedEpisode) -> list[int]:
    return [stamp for episode in episodes for stamp in episode.stamp_ns.tolist()]


def test_every_episode_gets_its_words_while_it_is_played(episodes) -> None:
    reason, instructions, found, done = follow(episodes, stamps(*episodes)[:1] + stamps(*episodes))
    assert reason is None
    assert instructions.given == ['push', 'pull']
    # The answer to the very last frame is waited for.
    assert instructions.waited_for == [None, stamps(*episodes)[-1]]
    assert done == list(range(1, 15))
    playback = found.playback(None)
    assert (playback.frames_published, playback.rate) == (14, None)
    assert len(found.frames()) == 14


def test_frames_between_episodes_have_no_words(episodes) -> None:
    first, second = episodes
    between = [first.stamp_ns[-1] + 1_000_000_000 * pause for pause in (1, 2)]
    pictures = [*stamps(first), *map(int, between), *stamps(second)]
    _, instructions, _, _ = follow(episodes, pictures)
    assert instructions.given == ['push', 'pull']
    assert instructions.waited_for[0] is None


def test_words_that_the_node_took_for_done_are_not_said_again(episodes) -> None:
    _, instructions, _, _ = follow(episodes, stamps(*episodes), ends=('done',), broken_off_after=2)
    assert instructions.given == ['push', 'pull']


def test_after_a_pause_the_words_are_said_again(episodes) -> None:
    first, second = episodes
    pictures = [*stamps(first)[:4], 2.0, 3.0, *stamps(first)[4:], *stamps(second)]
    reason, instructions, _, _ = follow(
        episodes, pictures, ends=('no_fresh_image',), broken_off_after=2)
    assert reason is None
    assert instructions.given == ['push', 'push', 'pull']


def test_a_player_that_pauses_too_long_has_ended(episodes) -> None:
    reason, _, found, _ = follow(episodes, [*stamps(episodes[0])[:3], 6.0, 6.0])
    assert reason.startswith('no picture came for 5 s, 10.2 s before the end of the recording')
    assert found.playback(reason).ended_early == reason


def test_a_player_that_goes_away_has_ended(episodes) -> None:
    reason, instructions, _, _ = follow(episodes, stamps(episodes[0])[:3])
    assert reason == 'the player ended 10.2 s before the end of the recording'
    assert instructions.given == ['push']


def test_a_last_frame_that_was_not_heard_is_the_end_all_the_same(episodes) -> None:
    assert follow(episodes, stamps(*episodes)[:-1])[0] is None


def test_without_a_player_its_pictures_are_missed(episodes) -> None:
    with pytest.raises(PolicyClientError, match='expected pictures on /camera/image_raw'):
        follow(episodes, [])


def test_a_player_without_a_clock_is_refused(episodes) -> None:
    with pytest.raises(PolicyClientError, match='expected a player that publishes /clock'):
        follow(episodes, stamps(*episodes), clocks=0)


def test_a_clock_that_was_set_back_is_refused(episodes) -> None:
    with pytest.raises(PolicyClientError, match='clock that was set back'):
        follow(episodes[::-1], stamps(*episodes))
