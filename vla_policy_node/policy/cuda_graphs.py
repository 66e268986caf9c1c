"""
Work on a GPU, recorded once as a CUDA graph and replayed without Python or launches.

Also the clock that can time such work: a GPU is only asked for its times when all is done.
"""

from collections.abc import Callable
from time import perf_counter

import torch

Work = Callable[[], None]
# Takes work that reads and writes the same tensors every time; returns what repeats it.
GraphMaker = Callable[[Work], Work]


def graph_maker_for(device: torch.device) -> GraphMaker | None:
    """Return what records graphs on a device; None where there is nothing of the kind."""
    return CudaGraphs() if device.type == 'cuda' else None


class CudaGraphs:
    """Records work as CUDA graphs that share one pool of memory, as they never run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """Record work that has run before; return its replay, or RuntimeError if it cannot."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
            work()
        return graph.replay


class Clock:
    """Times what happens between marks, on a GPU as well."""

    def __init__(self, device: torch.device) -> None:
        """Start."""
        self._on_gpu = device.type == 'cuda'
        self._marks = [self._now()]

    def mark(self) -> None:
        """Note the time; on a GPU the time at which it has come so far."""
        self._marks.append(self._now())

    def parts_ms(self) -> list[float]:
        """Return the milliseconds between the marks, after all is done."""
        pairs = list(zip(self._marks[:-1], self._marks[1:], strict=True))
        if self._on_gpu:
            self._marks[-1].synchronize()
            return [start.elapsed_time(end) for start, end in pairs]
        return [1e3 * (end - start) for start, end in pairs]

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
