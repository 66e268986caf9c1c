"""What every source of demonstrations must do; a test class inherits it and gives `source`."""

from collections.abc import Callable
import pickle

import numpy as np

from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import RobotSource


def assert_same(one: RobotRecord, other: RobotRecord) -> None:
    """Compare everything in two records."""
    assert one.instruction == other.instruction
    assert one.plan == other.plan
    assert one.terminate == other.terminate
    np.testing.assert_array_equal(one.actions, other.actions)
    assert one.images.keys() == other.images.keys()
    for name in one.images:
        np.testing.assert_array_equal(one.images[name], other.images[name])


class RobotSourceContract:
    """
    The contract; `source` is a fixture of a good source of at least two records of horizon 2.

    `reopened` opens the same data again; `changed` changes the data on disk and opens them.
    """

    horizon = 2

    def test_it_is_a_robot_source_with_its_name(self, source: RobotSource) -> None:
        assert source.kind == 'robot'
        assert source.name == 'mine'

    def test_every_record_belongs_to_an_episode(self, source: RobotSource) -> None:
        assert source.episodes.shape == (len(source),)
        assert source.episodes.dtype == np.int64

    def test_the_actions_of_all_steps_are_finite_and_seven_wide(self, source: RobotSource) -> None:
        actions = source.actions()
        assert actions.shape == (len(source), 7)
        assert actions.dtype == np.float64
        assert np.isfinite(actions).all()

    def test_records_hold_pictures_words_and_as_many_actions_as_the_horizon(
        self, source: RobotSource,
    ) -> None:
        for index in (0, len(source) - 1):
            record = source[index]
            assert isinstance(record, RobotRecord)
            assert record.instruction.strip()
            assert record.actions.shape == (self.horizon, 7)
            np.testing.assert_array_equal(record.actions[0], source.actions()[index])
            assert 0.0 <= record.actions[:, 6].min() <= record.actions[:, 6].max() <= 1.0
            for image in record.images.values():
                assert image.dtype == np.uint8
                assert image.ndim == 3
                assert image.shape[2] == 3

    def test_an_index_beyond_the_end_is_an_index_error(self, source: RobotSource) -> None:
        try:
            source[len(source)]
        except IndexError:
            return
        raise AssertionError('expected an IndexError')

    def test_the_same_index_gives_the_same_record_in_any_order(self, source: RobotSource) -> None:
        first, last = source[0], source[len(source) - 1]
        assert_same(source[len(source) - 1], last)
        assert_same(source[0], first)

    def test_a_pickled_source_reads_the_same_records(self, source: RobotSource) -> None:
        first = source[0]
        copy = pickle.loads(pickle.dumps(source))
        assert len(copy) == len(source)
        assert_same(copy[0], first)
        assert copy.fingerprint() == source.fingerprint()

    def test_the_fingerprint_is_that_of_the_data(
        self, source: RobotSource, reopened: Callable[[], RobotSource],
        changed: Callable[[], RobotSource],
    ) -> None:
        fingerprint = source.fingerprint()
        assert len(fingerprint) == 64
        assert reopened().fingerprint() == fingerprint
        assert changed().fingerprint() != fingerprint
