"""Records arrive in order, whatever happens to some of them."""

import os
import pickle
import threading
import time

import numpy as np
import pytest

from vla_policy_node.training.sources.loading import LoaderPlan
from vla_policy_node.training.sources.loading import LoadingError
from vla_policy_node.training.sources.loading import RecordLoader
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import SourceError
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.training.sources.sampler import MixtureSampler


class FakeSource:
    """Records that are their own numbers, some of them corrupt."""

    kind = 'text'

    def __init__(self, name, count, corrupt=()):
        self.name = name
        self._count = count
        self._corrupt = frozenset(corrupt)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if index in self._corrupt:
            raise RecordError(f'{self.name}.jsonl, line {index}: broken')
        return TextRecord(question=self.name, answer=str(index))


SOURCES = [FakeSource('robot', 40), FakeSource('chat', 70)]


def sampler(sources=SOURCES, seed=0):
    """Mix sources evenly."""
    return MixtureSampler(
        [len(source) for source in sources], [1 / len(sources)] * len(sources), seed)


def answer(record, position):
    """Return what identifies a record; picklable."""
    return record.answer


def slow_at_first(record, position):
    """Take longer for earlier positions, so that later ones are ready before them."""
    time.sleep(0.02 if position % 4 == 0 else 0.0)
    return record.answer


def load(count, sources=SOURCES, prepare=answer, on_corrupt=lambda message: None, **plan):
    """Load so many."""
    with RecordLoader(sources, sampler(sources), prepare, LoaderPlan(**plan),
                      on_corrupt=on_corrupt) as loader:
        return [next(loader) for _ in range(count)]


def test_records_come_in_the_order_of_the_sampler_although_some_take_longer():
    loaded = load(30, prepare=slow_at_first, threads=4)
    assert [one.position for one in loaded] == list(range(30))
    assert [(one.source, one.record) for one in loaded] == [
        (SOURCES[draw.source].name, draw.record) for draw in sampler().draw_range(0, 30)]
    assert [one.value for one in loaded] == [str(one.record) for one in loaded]


def test_loading_from_a_position_on_gives_what_would_have_come():
    assert load(10, first=7) == load(17)[7:]


@pytest.mark.parametrize('first', [0, 5])
def test_ranks_share_the_positions_without_duplicates(first):
    ranks = [load(10, first=first, rank=rank, ranks=3) for rank in range(3)]
    positions = [one.position for rank in ranks for one in rank]
    assert sorted(positions) == list(range(first, first + 30))
    assert [one.position % 3 for one in ranks[1]] == [1] * 10


def test_a_corrupt_record_is_reported_and_replaced_by_the_next_of_its_source():
    sources = [FakeSource('robot', 40), FakeSource('chat', 70, corrupt=[11])]
    reports = []
    loaded = load(150, sources, on_corrupt=reports.append)
    wanted = sampler().draw_range(0, 150)
    place = next(place for place, draw in enumerate(wanted) if draw == (1, 11))
    assert loaded[place].source == 'chat'
    assert loaded[place].record == sampler().replacement(place, 1).record
    assert [one.record for one in loaded[:place]] == [draw.record for draw in wanted[:place]]
    assert reports == ['chat, record 11: chat.jsonl, line 11: broken']


def test_a_record_that_prepare_refuses_is_corrupt_too():
    reports = []
    loaded = load(40, prepare=refuse_sevens, on_corrupt=reports.append)
    assert all('7' not in one.value for one in loaded)
    assert reports and all('too much of a seven' in report for report in reports)


def refuse_sevens(record, position):
    """Refuse answers with a 7."""
    if '7' in record.answer:
        raise RecordError('too much of a seven')
    return record.answer


def test_more_than_the_tolerated_share_of_corrupt_records_ends_the_loading():
    sources = [FakeSource('robot', 40), FakeSource('chat', 100, corrupt=range(0, 100, 10))]
    reports = []
    with pytest.raises(SourceError, match=r'source chat: .* at most 5% .*; the last: chat, rec'):
        load(1000, sources, on_corrupt=reports.append)
    assert 5 < len(reports) < 20
    assert len(load(1000, sources, max_corrupt_share=0.2)) == 1000


def test_a_source_without_any_usable_record_ends_the_loading_at_once():
    sources = [FakeSource('robot', 40), FakeSource('chat', 100, corrupt=range(100))]
    with pytest.raises(SourceError, match='source chat: .* found 32 of 32'):
        load(10, sources)


def fail_at_five(record, position):
    """Fail for a reason that is not the record's."""
    if position == 5:
        raise KeyError('token')
    return record.answer


@pytest.mark.parametrize('plan', [{'threads': 2}, {'workers': 1}])
def test_an_exception_of_prepare_arrives_in_its_place_with_the_name_of_the_record(plan):
    draw = sampler().draw(5)
    name = f'{SOURCES[draw.source].name}, record {draw.record}'
    with RecordLoader(SOURCES, sampler(), fail_at_five, LoaderPlan(**plan)) as loader:
        assert [next(loader).position for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(LoadingError, match=f"^{name}: .* KeyError: 'token'$"):
            next(loader)
        assert next(loader).position == 6


def process_id(record, position):
    """Return which process prepared."""
    return os.getpid()


def test_worker_processes_give_the_same_stream_from_processes_of_their_own():
    sources = [FakeSource('robot', 40), FakeSource('chat', 70, corrupt=[11])]
    reports = []
    loaded = load(100, sources, process_id, reports.append, workers=1)
    assert [(one.position, one.record) for one in loaded] == [
        (one.position, one.record) for one in load(100, sources)]
    assert len(reports) == 1
    assert {one.value for one in loaded}.isdisjoint({os.getpid()})


def end_process(record, position):
    """End like a process that is killed for its memory."""
    os._exit(9)


def test_a_worker_process_that_dies_is_an_error_and_not_a_wait_for_ever():
    with pytest.raises(LoadingError, match='worker process has ended'):
        load(1, prepare=end_process, workers=1)


class Counting:
    """Counts what is prepared, over all copies."""

    prepared: list[int] = []  # noqa: RUF012

    def __call__(self, record, position):
        self.prepared.append(position)
        return position


def test_no_more_is_prepared_than_may_wait():
    Counting.prepared.clear()
    with RecordLoader(SOURCES, sampler(), Counting(), LoaderPlan(ahead=6)) as loader:
        next(loader)
        deadline = time.monotonic() + 5
        while len(Counting.prepared) < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert sorted(Counting.prepared) == list(range(7))


class CountCopies:
    """Says by which thread it was last called; its array is large."""

    def __init__(self):
        self.table = np.zeros(1_000_000)
        self.users = set()

    def __call__(self, record, position):
        self.users.add(threading.get_ident())
        return len(self.users), self.table.ctypes.data


def test_each_thread_has_a_copy_of_its_own_that_shares_the_arrays():
    prepare = CountCopies()
    values = [one.value for one in load(60, prepare=prepare, threads=3)]
    assert {users for users, _ in values} == {1}
    assert {address for _, address in values} == {prepare.table.ctypes.data}


def slow(record, position):
    """Take 20 ms."""
    time.sleep(0.02)


def test_the_share_of_time_spent_waiting_is_measured_anew_each_time():
    with RecordLoader(SOURCES, sampler(), slow, LoaderPlan(ahead=2, threads=1)) as loader:
        for _ in range(10):
            next(loader)
        assert loader.waiting_share() > 0.6
        for _ in range(5):
            time.sleep(0.1)
            next(loader)
        assert loader.waiting_share() < 0.4


def test_a_closed_loader_has_no_threads_left():
    before = threading.active_count()
    load(3)
    assert threading.active_count() == before


def test_what_travels_between_processes_can_be_pickled():
    error = pickle.loads(pickle.dumps(LoadingError('chat, record 3: expected')))
    assert str(error) == 'chat, record 3: expected'
