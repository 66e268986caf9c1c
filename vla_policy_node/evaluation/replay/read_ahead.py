"""Takes from an iterator in a thread, a few items ahead, so that nobody waits for reading."""

from collections.abc import Iterable
from collections.abc import Iterator
from queue import Full
from queue import Queue
from threading import Event
from threading import Thread
from time import perf_counter
from typing import Generic
from typing import TypeVar

Item = TypeVar('Item')

_STOP_CHECK_S = 0.1
_END = object()


class ReadAhead(Generic[Item]):
    """
    Iterates over `items` in a thread of its own; a context manager, iterable once.

    ahead: how many items may wait, which bounds the memory. An error of the iterator is raised
    where the item would have come. busy_s, waited_s: time spent in the iterator, and time that
    whoever iterates over this waited for it.
    """

    def __init__(self, items: Iterable[Item], ahead: int) -> None:
        self.busy_s = 0.0
        self.waited_s = 0.0
        self._items = items
        self._queue: Queue = Queue(ahead)
        self._stopped = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name='read-ahead', daemon=True)

    def __enter__(self) -> 'ReadAhead[Item]':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            start = perf_counter()
            item = self._queue.get()
            self.waited_s += perf_counter() - start
            if item is _END:
                break
            yield item
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        iterator = iter(self._items)
        try:
            while not self._stopped.is_set():
                start = perf_counter()
                item = next(iterator, _END)
                self.busy_s += perf_counter() - start
                if item is _END:
                    break
                self._put(item)
        except BaseException as error:  # raised again where the item would have come
            self._error = error
        finally:
            self._put(_END)

    def _put(self, item: object) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_STOP_CHECK_S)
                return
            except Full:
                continue
