"""How much memory a loaded model takes, part by part, and how much loading it took."""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
import re
import resource
from types import TracebackType

import psutil
import torch
from torch import nn

from vla_policy_node.policy.parts import EMBEDDINGS
from vla_policy_node.policy.parts import LANGUAGE
from vla_policy_node.policy.parts import part_of_modules
from vla_policy_node.policy.parts import PROJECTOR
from vla_policy_node.policy.parts import VISION
from vla_policy_node.policy.quantization import is_quantized

_CLEAR_PEAK = '5'


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """
    Bytes of a model's parts: weights, buffers and the scales of quantised layers.

    :param language_quantized: of the language model, the layers in 4 or 8 bit.
    :param language: of the language model, everything else.
    :param embeddings: embeddings and output head, once where they are the same weights.
    :param peak: most that loading held at once. On a GPU what torch allocated there; on a CPU by
        how much the process grew, pages mapped from the files of the weights included.
    """

    vision: int
    projector: int
    language_quantized: int
    language: int
    embeddings: int
    peak: int

    @property
    def total(self) -> int:
        """Return the bytes of all parts."""
        return (self.vision + self.projector + self.language_quantized + self.language
                + self.embeddings)

    def __str__(self) -> str:
        """Return one line for people, in MB of 10^6 bytes."""
        language = f'language model {_mb(self.language_quantized + self.language)}'
        if self.language_quantized:
            language += f' (quantised layers {_mb(self.language_quantized)})'
        return (f'{_mb(self.total)}: vision {_mb(self.vision)}, projector {_mb(self.projector)}, '
                f'{language}, embeddings and head {_mb(self.embeddings)}; '
                f'at most {_mb(self.peak)} while loading')


def measure_memory(model: nn.Module, peak: int) -> MemoryReport:
    """Return the report of a loaded model; peak: as PeakMemory measured it, bytes."""
    part_of = part_of_modules(model)
    sizes = dict.fromkeys((VISION, PROJECTOR, LANGUAGE, EMBEDDINGS), 0)
    quantized = 0
    seen: set[int] = set()
    for module in model.modules():
        part = part_of[id(module)]
        size = sum(tensor.nbytes for tensor in _new_tensors(module, seen))
        if part == LANGUAGE and is_quantized(module):
            quantized += size
        else:
            sizes[part] += size
    return MemoryReport(
        vision=sizes[VISION], projector=sizes[PROJECTOR], language_quantized=quantized,
        language=sizes[LANGUAGE], embeddings=sizes[EMBEDDINGS], peak=peak)


class PeakMemory:
    """Measures in a ``with`` block the most memory held at once; then ``bytes`` says it."""

    def __init__(self, device: str) -> None:
        """Take the device: 'cpu', 'cuda' or 'cuda:<index>'."""
        self.bytes = 0
        self._device = torch.device(device)
        self._before = 0

    def __enter__(self) -> 'PeakMemory':
        """Begin."""
        if self._device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _clear_resident_peak()
            self._before = psutil.Process().memory_info().rss
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        """End."""
        if self._device.type == 'cuda':
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.bytes = max(0, _resident_peak() - self._before)


def _new_tensors(module: nn.Module, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield a module's own tensors whose memory has not been seen; tied weights come once."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    for tensor in [*own, *(extra for weight in own for extra in _scales(vars(weight)))]:
        # Packed weights are nobody else's and have no address.
        place = id(tensor) if tensor.is_mkldnn else tensor.data_ptr()
        if place not in seen:
            seen.add(place)
            yield tensor


def _scales(attributes: Mapping[str, object]) -> Iterator[torch.Tensor]:
    """Yield what bitsandbytes keeps beside a quantised weight, scales of scales included."""
    for name in ('SCB', 'absmax', 'code', 'offset'):
        if isinstance(attributes.get(name), torch.Tensor):
            yield attributes[name]
    for name in ('quant_state', 'state2'):
        if attributes.get(name) is not None:
            yield from _scales(vars(attributes[name]))


def _clear_resident_peak() -> None:
    """Let the kernel measure this process's peak afresh; where it cannot, it counts from start."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text(_CLEAR_PEAK, encoding='ascii')


def _resident_peak() -> int:
    """Return the most memory that this process held, bytes."""
    status = Path('/proc/self/status').read_text(encoding='ascii')
    found = re.search(r'VmHWM:\s*(\d+) kB', status)
    # The second is what every system has, but after an exec it may be the parent's.
    return 1024 * (int(found.group(1)) if found else
                   resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _mb(size: int) -> str:
    return f'{size / 1e6:.0f} MB' if size >= 1e7 else f'{size / 1e6:.1f} MB'
