"""What a device can do at best, measured: memory bandwidth and matrix products."""

from collections.abc import Callable
import os
from pathlib import Path
import platform
from time import perf_counter
from typing import Any

import torch

_ROUNDS = 12
# Bytes that are read: far more than any cache holds.
_BYTES = {'cpu': 2**28, 'cuda': 2**31}
# Side of square matrices; on a CPU one product of these takes about a tenth of a second.
_SIDE = {'cpu': 2048, 'cuda': 4096}
_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_bf16')


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def measure_peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """
    Return the best of a dozen tries: GB/s and TFLOP/s of large plain operations.

    Bandwidth is the better of a sum, which reads, and a copy, which reads and writes.
    """
    bandwidth = _bandwidth(_BYTES[device.type], device)
    side = _SIDE[device.type]
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    product_s = _best_s(lambda: matrix @ matrix, device)
    return {'gb_per_s': bandwidth / 1e9, 'tflop_per_s': 2 * side**3 / product_s / 1e12}


def _bandwidth(size: int, device: torch.device) -> float:
    """Return bytes per second."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    read_s = _best_s(source.sum, device)
    copy_s = _best_s(lambda: target.copy_(source), device)
    return max(size / read_s, 2 * size / copy_s)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures were taken on."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text(encoding='ascii').splitlines() if info.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (
        line.partition(':') for line in lines)}
    flags = fields.get('flags', '').split()
    machine = {
        'cpu': fields.get('model name', platform.processor()),
        'cpu_flags': [flag for flag in _FLAGS if flag in flags],
        'cpus': os.cpu_count(),
        'torch': torch.__version__,
        'load_average': os.getloadavg()[0],
    }
    if device.type == 'cuda':
        machine['gpu'] = torch.cuda.get_device_name(device)
    return machine


def _best_s(work: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(_ROUNDS):
        synchronise(device)
        start = perf_counter()
        work()
        synchronise(device)
        times.append(perf_counter() - start)
    return min(times)
