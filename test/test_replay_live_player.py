"""The player publishes what cameras recorded, when it is due, and knows under which stamps."""

from pathlib import Path
import struct
import time

import bag_folders as bags
from bag_folders import START
import pytest
from replay_live_fakes import CONFIG
from replay_live_fakes import FRAME_S
from replay_live_fakes import messages
from replay_live_fakes import write_bag

from vla_policy_node.evaluation.replay import player
from vla_policy_node.evaluation.replay.player import Outlets
from vla_policy_node.evaluation.replay.player import PlayedFrames
from vla_policy_node.evaluation.replay.player import Player
from vla_policy_node.evaluation.replay.player import read_pictures
from vla_policy_node.evaluation.replay.player import with_stamp
from vla_policy_node.evaluation.replay.raw_pictures import as_raw_image
from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recordings import DamagedError
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import stamp_of


def opened(*paths: Path, **changes: object) -> RecordedBags:
    config = {**CONFIG, 'frames': {}, **changes}
    return read_bags(paths, RecordedConfig.model_validate(config), period_s=0.2)


def pictures(found: RecordedBags, topics=(bags.CAMERA,), **options) -> list:
    return list(read_pictures(found.episodes, topics, **{'lead_s': 0.1, **options}))


class Wire:
    """Takes what is published, with the time at which it came."""

    def __init__(self, topics=(bags.CAMERA,)) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.at_s: list[float] = []
        self.clock: list[int] = []
        self.publish = {topic: lambda data, topic=topic: self._take(topic, data)
                        for topic in topics}

    def _take(self, topic: str, data: bytes) -> None:
        self.sent.append((topic, data))
        self.at_s.append(time.monotonic())

    def stamps(self) -> list[int]:
        return [stamp_of(data) for _, data in self.sent]


def played(
    found: RecordedBags, wire: Wire, *, rate: float, sim: bool = False, stop_after: int = 0,
) -> tuple[PlayedFrames, list[int]]:
    """Play the first episode; returns what was played and the steps told."""
    playing = Player(Outlets(publish=wire.publish, clock=wire.clock.append if sim else None),
                     rate=rate)
    steps: list[int] = []
    episode = found.episodes[0]
    playing.play(episode, [picture for owner, picture in pictures(found, list(wire.publish))
                           if owner is episode], on_step=steps.append,
                 goes_on=lambda: not stop_after or len(wire.sent) < stop_after)
    return playing.played, steps


@pytest.mark.parametrize('order', ['<', '>'])
def test_a_stamp_is_replaced_in_either_byte_order_and_nothing_else(order: str) -> None:
    data = bytes((0, order == '<', 0, 0)) + struct.pack(f'{order}iI', 1, 2) + b'the rest'
    changed = with_stamp(data, 5_000_000_006)
    assert changed == data[:4] + struct.pack(f'{order}iI', 5, 6) + b'the rest'
    assert stamp_of(changed) == 5_000_000_006


def test_pictures_come_as_recorded_with_the_time_of_publication(tmp_path: Path) -> None:
    found, wire = opened(write_bag(tmp_path / 'bag', messages(7))), Wire()
    before_ns = time.time_ns()
    done, steps = played(found, wire, rate=10.0)
    stamps = wire.stamps()
    assert before_ns < stamps[0] and stamps[-1] < time.time_ns()
    assert stamps == sorted(set(stamps))
    recorded = [message.data for message in Recording(tmp_path / 'bag').raw(bags.CAMERA)]
    assert [data[12:] for _, data in wire.sent] == [data[12:] for data in recorded]
    assert steps == list(range(7))
    assert [done.frames[stamp] for stamp in stamps] == [
        (found.episodes[0], step) for step in range(7)]
    assert (done.published, done.newest_ns) == (7, stamps[-1])


def test_pictures_keep_their_distances_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    found, wire = opened(write_bag(tmp_path / 'bag', messages(9))), Wire()
    done, _ = played(found, wire, rate=2.0)
    # On a busy machine they come late, never early, and what is late is known.
    late_s = [at_s - wire.at_s[0] - FRAME_S / 2.0 * number
              for number, at_s in enumerate(wire.at_s)]
    assert min(late_s) > -1e-3 - 1e-3 * done.delay_ms[0]
    assert max(done.delay_ms) * 1e-3 >= max(late_s) - 1e-3


def test_with_the_recordings_clock_stamps_stay_and_no_picture_is_ahead(tmp_path: Path) -> None:
    found, wire = opened(write_bag(tmp_path / 'bag', messages(7))), Wire()
    done, _ = played(found, wire, rate=5.0, sim=True)
    assert wire.stamps() == found.episodes[0].stamp_ns.tolist()
    assert wire.clock == sorted(wire.clock)
    assert set(found.episodes[0].received_ns.tolist()) <= set(wire.clock)
    assert len(wire.clock) > 7, 'the clock ticks between pictures too'
    assert done.frames[START] == (found.episodes[0], 0)


def test_the_clock_runs_at_the_rate(tmp_path: Path) -> None:
    found, wire = opened(write_bag(tmp_path / 'bag', messages(7))), Wire()
    start_s = time.monotonic()
    played(found, wire, rate=0.7, sim=True)
    passed_s = 1e-9 * (wire.clock[-1] - wire.clock[0])
    assert passed_s == pytest.approx(6 * FRAME_S, abs=0.02)
    assert wire.clock == sorted(wire.clock)
    assert time.monotonic() - start_s >= passed_s / 0.7


def test_a_picture_without_a_stamp_gets_the_time_of_its_receipt(tmp_path: Path) -> None:
    episode = [message for message in messages(7) if message[0] != bags.CAMERA]
    for number in range(7):
        topic, received_ns, picture = bags.image(FRAME_S * number, number)
        picture.header.stamp.sec = picture.header.stamp.nanosec = 0
        episode.append((topic, received_ns, picture))
    found, wire = opened(write_bag(tmp_path / 'bag', episode)), Wire()
    done, _ = played(found, wire, rate=10.0, sim=True)
    received = found.episodes[0].received_ns.tolist()
    assert wire.stamps() == received
    assert [done.frames[stamp][1] for stamp in received] == list(range(len(received)))


def test_pictures_between_the_steps_are_played_and_are_no_steps(tmp_path: Path) -> None:
    episode = messages(9)
    # Nothing is known of what was done around the third chunk.
    gap = [message for message in episode if message[0] == bags.CHUNKS][1]
    gap[2].deltas[0].translation.x = float('nan')
    found, wire = opened(write_bag(tmp_path / 'bag', episode)), Wire()
    done, steps = played(found, wire, rate=10.0)
    assert done.published == 9
    numbers = [step for _, step in done.frames.values()]
    assert None in numbers[1:-1]
    assert steps == [number for number in numbers if number is not None]


def test_playing_ends_when_nobody_wants_to_go_on(tmp_path: Path) -> None:
    found, wire = opened(write_bag(tmp_path / 'bag', messages(30))), Wire()
    done, steps = played(found, wire, rate=10.0, stop_after=3)
    assert (done.published, steps) == (3, [0, 1, 2])


def test_what_lies_between_episodes_is_not_played(tmp_path: Path) -> None:
    # The pause of nine seconds is not waited for; the picture at 5 s belongs to neither episode.
    path = write_bag(tmp_path / 'bag', messages(7), [bags.image(5.0, 200)],
                     messages(3, first=50, at_s=10.0, text='pull'))
    found = opened(path)
    shades = [(owner.number, bags.store().deserialize_cdr(
        picture.data, bags.TYPES[bags.CAMERA]).data[0]) for owner, picture in pictures(found)]
    assert shades == [(0, shade) for shade in range(7)] + [(1, shade) for shade in range(50, 53)]


def test_the_picture_of_another_camera_comes_before_the_first_frame(tmp_path: Path) -> None:
    wrist = [bags.image(at_s, 7, topic=bags.WRIST) for at_s in (-0.5, -0.03, 0.1)]
    found = opened(write_bag(tmp_path / 'bag', messages(7), wrist), cameras={
        'primary': bags.CAMERA, 'wrist': bags.WRIST})
    topics = [picture.topic for _, picture in pictures(found, (bags.CAMERA, bags.WRIST))]
    assert topics[:3] == [bags.WRIST, bags.CAMERA, bags.CAMERA]
    assert topics.count(bags.WRIST) == 2


def test_compressed_pictures_become_raw_ones_where_a_node_hears_these_only(tmp_path: Path) -> None:
    wrist = [bags.image(at_s, 70, topic=bags.WRIST) for at_s in (-0.03, 0.1)]
    broken = bags.image(0.2, 70, topic=bags.WRIST)
    broken[2].data = broken[2].data[:10]
    found = opened(write_bag(tmp_path / 'bag', messages(7), [*wrist, broken]), cameras={
        'primary': bags.CAMERA, 'wrist': bags.WRIST}, max_skew_s=1.0)
    raw = [picture for _, picture in pictures(
        found, (bags.CAMERA, bags.WRIST), adapt=as_raw_image) if picture.topic == bags.WRIST]
    assert [picture.type for picture in raw] == [bags.TYPES[bags.CAMERA]] * 2
    message = bags.store().deserialize_cdr(raw[0].data, bags.TYPES[bags.CAMERA])
    assert (message.height, message.width, message.encoding, message.step) == (4, 6, 'rgb8', 18)
    assert set(message.data.tolist()) == {70}
    assert stamp_of(raw[0].data) == START - 30_000_000


def test_a_bag_that_lost_its_index_is_played_whole(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', messages(7))
    file = next(path.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:-37])
    assert len(pictures(opened(path))) == 7


class BrokenRecording(Recording):
    """Cannot be read behind its third picture, except by salvaging."""

    def raw(self, *names, **times):
        for number, message in enumerate(super().raw(*names, **times)):
            if number == 3 and not self._salvage:
                raise DamagedError('a chunk is broken')
            yield message


def test_a_bag_that_turns_out_to_be_damaged_is_played_on(tmp_path: Path, monkeypatch) -> None:
    found = opened(write_bag(tmp_path / 'bag', messages(7)))
    monkeypatch.setattr(player, 'Recording', BrokenRecording)
    received = [picture.received_ns for _, picture in pictures(found)]
    assert received == found.episodes[0].received_ns.tolist()
