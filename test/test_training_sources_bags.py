"""Bags of our own nodes become records: the picture that was acted on, and what was done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bag_folders as bags
from bag_folders import CAMERA
from bag_folders import CHUNKS
from bag_folders import Message
from bag_folders import STATUS
from bag_folders import WORDS
from bag_folders import WRIST
import numpy as np
import pytest
from robot_source_contract import RobotSourceContract

from vla_policy_node.training.sources.bags import BagSource
from vla_policy_node.training.sources.config import BagsSection
from vla_policy_node.training.sources.config import open_robot_source
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError

FORWARD = [0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
LEFT = [0.0, 0.02, 0.0, 0.0, 0.0, 0.1, 1.0]
DOWN = [0.0, 0.0, -0.03, 0.0, 0.0, 0.0, 0.25]
CLOSE = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

# Pictures ten times a second, stamped 50 ms before they arrive; the policy acts every 0.2 s.
PICTURES = [bags.image(0.1 * n, 10 * n, stamp_s=0.1 * n - 0.05) for n in range(1, 9)]
EPISODE = [
    *PICTURES, bags.words(0.0, 'touch the red block'),
    bags.chunk(0.22, [FORWARD], observed_s=0.15, plan='red'),
    bags.chunk(0.42, [LEFT], observed_s=0.35),
    bags.chunk(0.62, [DOWN], observed_s=0.55),
]


def _open(*paths: Path, horizon: int = 2, period_s: float = 0.2, **changes: Any) -> BagSource:
    section = BagsSection.model_validate({
        'kind': 'bags', 'paths': [str(path) for path in paths], 'cameras': {'primary': CAMERA},
        'instruction_topic': WORDS, **changes})
    return open_robot_source(
        'mine', section, horizon=horizon, period_s=period_s, cache=paths[0].parent / 'cache')


def _grey(source: BagSource, index: int, camera: str = 'primary') -> int:
    return int(source[index].images[camera][0, 0, 0])


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write(tmp_path_factory.mktemp('bags') / 'bag', EPISODE)


class TestContract(RobotSourceContract):
    """One bag of three chunks."""

    @pytest.fixture
    def source(self, bag: Path) -> BagSource:
        return _open(bag)

    @pytest.fixture
    def reopened(self, bag: Path) -> Callable[[], BagSource]:
        return lambda: _open(bag)

    @pytest.fixture
    def changed(self, tmp_path: Path) -> Callable[[], BagSource]:
        other = [*EPISODE[:-1], bags.chunk(0.62, [CLOSE], observed_s=0.55)]
        return lambda: _open(bags.write(tmp_path / 'bag', other))


def test_a_chunk_goes_with_the_newest_picture_it_can_have_seen(bag: Path) -> None:
    source = _open(bag)
    # The picture stamped 0.15 arrived at 0.2 as the second one.
    assert [_grey(source, index) for index in range(3)] == [20, 40, 60]


def test_the_actions_that_follow_are_those_of_the_next_chunks(bag: Path) -> None:
    source = _open(bag)
    assert source[0].actions.tolist() == [FORWARD, LEFT]
    assert source[2].actions.tolist() == [DOWN, [0.0] * 6 + [0.25]]
    assert [source[index].terminate for index in range(3)] == [False, True, True]
    assert (source[0].instruction, source[0].plan) == ('touch the red block', 'red')


def test_all_steps_of_a_chunk_that_were_begun_are_records_with_their_own_pictures(
    tmp_path: Path,
) -> None:
    long = bags.chunk(0.12, [FORWARD, LEFT, DOWN, CLOSE], observed_s=0.05)
    last = bags.chunk(0.52, [CLOSE], observed_s=0.45)
    source = _open(bags.write(tmp_path / 'bag', [*PICTURES, long, last]), instruction='go')
    # Two of the four steps had begun when the last chunk came 0.4 s later.
    assert source.actions().tolist() == [FORWARD, LEFT, CLOSE]
    assert [_grey(source, index) for index in range(3)] == [10, 30, 50]


def test_an_episode_ends_where_the_instruction_changes_or_the_policy_pauses(
    tmp_path: Path,
) -> None:
    path = bags.write(tmp_path / 'bag', [
        *PICTURES, bags.words(0.0, 'one'), bags.chunk(0.2, [FORWARD]), bags.chunk(0.4, [LEFT]),
        bags.words(0.5, 'two'), bags.chunk(0.6, [DOWN]), bags.chunk(0.8, [LEFT]),
        bags.chunk(3.5, [FORWARD])])
    source = _open(path)
    assert source.episodes.tolist() == [0, 0, 1, 1, 2]
    assert [source[index].instruction for index in range(4)] == ['one', 'one', 'two', 'two']
    assert source[1].actions.tolist() == [LEFT, [0.0] * 6 + [1.0]]


def test_every_bag_is_an_episode_of_its_own(tmp_path: Path) -> None:
    for name in ('b', 'a'):
        bags.write(tmp_path / 'bags' / name, EPISODE)
    source = _open(tmp_path / 'bags' / '*')
    assert source.episodes.tolist() == [0, 0, 0, 1, 1, 1]
    assert _grey(source, 3) == 20


def test_a_terminating_step_ends_the_episode_without_motion(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', [
        *PICTURES, bags.chunk(0.2, [FORWARD]), bags.chunk(0.4, [DOWN], terminate=True),
        bags.chunk(0.6, [LEFT])])
    source = _open(path, instruction='go', horizon=1)
    assert source.actions().tolist() == [FORWARD, [0.0] * 6 + [0.25], LEFT]
    assert source.episodes.tolist() == [0, 0, 1]
    assert [source[index].terminate for index in range(3)] == [False, True, True]


def test_the_instruction_is_in_the_status_that_follows_each_chunk(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', [
        *PICTURES, bags.status(0.1, 'old'), bags.chunk(0.2, [FORWARD]), bags.status(0.21, 'new'),
        bags.chunk(0.4, [LEFT])])
    source = _open(path, instruction_topic=STATUS)
    assert [source[index].instruction for index in range(2)] == ['new', 'new']


def test_an_instruction_in_the_configuration_needs_no_topic(bag: Path) -> None:
    assert _open(bag, instruction='tap it', instruction_topic='/none')[0].instruction == 'tap it'


def test_several_cameras_are_read(tmp_path: Path) -> None:
    wrist = [bags.image(0.1 * n, 100 + n, topic=WRIST) for n in range(1, 9)]
    source = _open(bags.write(tmp_path / 'bag', [*EPISODE, *wrist]),
                   cameras={'primary': CAMERA, 'wrist': WRIST})
    assert (_grey(source, 0), _grey(source, 0, 'wrist')) == (20, 101)


def test_a_path_without_a_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r'mine: expected bags at .*nothing .* found 0 other'):
        _open(tmp_path / 'nothing')


def test_a_missing_camera_lists_the_topics(bag: Path) -> None:
    with pytest.raises(SourceError, match='mine: .*expected a topic /depth, found .*/camera/imag'):
        _open(bag, cameras={'primary': '/depth'})


def test_a_topic_that_is_no_camera_is_refused(bag: Path) -> None:
    with pytest.raises(SourceError, match='to be of type sensor_msgs/msg/Image or'):
        _open(bag, cameras={'primary': CHUNKS})


def test_chunks_of_another_period_name_the_setting(bag: Path) -> None:
    with pytest.raises(SourceError, match='chunk 0: .*found 0.2 s; set action.period_s'):
        _open(bag, period_s=0.1)


def test_a_bag_without_chunks_is_refused(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', PICTURES)
    with pytest.raises(SourceError, match='expected a topic /policy_node/action_chunk'):
        _open(path, instruction='go')


def test_a_bag_without_any_words_is_refused(tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', [*EPISODE[:-4], bags.words(0.0, ' '), *EPISODE[-3:]])
    with pytest.raises(SourceError, match='expected instructions on /instruction, found empty'):
        _open(path)


def test_a_truncated_bag_is_named(tmp_path: Path, bag: Path) -> None:
    file = next(bag.glob('*.mcap'))
    (tmp_path / 'cut.mcap').write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match='mine: .*cut.mcap: expected a complete rosbag2'):
        _open(tmp_path / 'cut.mcap')


def _with(*messages: Message) -> list[Message]:
    return [*(message for message in EPISODE if message[0] != CAMERA), *messages]


def test_a_chunk_without_a_picture_before_it_is_skipped(tmp_path: Path) -> None:
    source = _open(bags.write(tmp_path / 'bag', _with(bags.image(0.36, 9, stamp_s=0.35))))
    with pytest.raises(RecordError, match='mine: .*bag, chunk 0: expected a pic.* found none'):
        source[0]
    assert _grey(source, 1) == 9


def test_a_picture_that_is_too_old_is_not_what_was_acted_on(tmp_path: Path) -> None:
    source = _open(bags.write(tmp_path / 'bag', _with(bags.image(-2.85, 9))))
    with pytest.raises(RecordError, match='of the 2 s before .*, found 3.0 s'):
        source[0]


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    broken = bags.image(0.1, 9)
    broken[2].encoding = 'nonsense'
    source = _open(bags.write(tmp_path / 'bag', _with(broken)))
    with pytest.raises(RecordError, match="chunk 0: /camera/image_raw: .* found 'nonsense'"):
        source[0]


def test_a_chunk_that_is_not_finite_is_skipped_not_the_bag(tmp_path: Path) -> None:
    broken = bags.chunk(0.42, [[np.nan, *LEFT[1:]]], observed_s=0.35)
    source = _open(bags.write(tmp_path / 'bag', [*EPISODE[:-2], broken, EPISODE[-1]]), horizon=1)
    assert source.actions().tolist() == [FORWARD, DOWN]
    assert source[0].actions.tolist() == [FORWARD]
    with pytest.raises(RecordError, match='chunk 1: expected finite actions, found nan in x'):
        source[1]
