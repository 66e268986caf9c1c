"""
What torch raises, as PolicyErrors of one line; running out of memory is told from the rest.

Does not import torch. An error keeps the frames it passed through, and with them every tensor
they hold: as long as somebody looks at it, no memory comes back. So the frames are cleared first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
import ctypes
import gc
import sys
import traceback

from vla_policy_node.policy.types import PolicyError
from vla_policy_node.policy.types import PolicyMemoryError

# Classes by name, so that torch need not be there, and what allocators of CPU and GPU write.
_CLASSES = {'MemoryError', 'OutOfMemoryError', 'PolicyMemoryError'}
_SYSTEM_TEXT = 'cannot allocate memory'
_TEXTS = ('out of memory', "can't allocate memory", _SYSTEM_TEXT, 'std::bad_alloc',
          'cublas_status_alloc_failed')
# Only these write such a text of their own: a ValueError may quote an instruction.
_WRITERS = {'RuntimeError', 'SafetensorError'}
# Some list every model that transformers knows.
_LONGEST_TEXT = 600


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, of torch, Python or this suite, means that memory ran out."""
    classes = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError):
        return _SYSTEM_TEXT in str(error).lower()
    return bool(classes & _CLASSES or (classes & _WRITERS and tells_out_of_memory(str(error))))


def tells_out_of_memory(text: str) -> bool:
    """Tell whether the text of an allocator says that memory ran out."""
    return any(known in text.lower() for known in _TEXTS)


def one_line(error: BaseException) -> str:
    """Return an error's text on one line, of at most 600 characters."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_TEXT else f'{text[:_LONGEST_TEXT - 3]}...'


@contextmanager
def named_failures(doing: str, advice: str) -> Iterator[None]:
    """
    Turn what torch and transformers raise into a PolicyError.

    :param doing: what fails, as in 'inference'. advice: what to do when memory runs out.
    :raises PolicyMemoryError: memory ran out; what the failed call held has been given back.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, doing, advice) from None
        # Other ValueErrors are this suite's own, and say already what is wrong.
        if type(error) is ValueError or isinstance(error, (RuntimeError, IndexError)):
            raise PolicyError(f'{doing} failed: {one_line(error)}') from error
        raise


def out_of_memory(error: BaseException, doing: str, advice: str) -> PolicyMemoryError:
    """Return what to raise instead, after giving back what the failed call held."""
    reason = one_line(error)
    forget(error)
    give_back_memory()
    if isinstance(error, PolicyMemoryError):
        return error
    return PolicyMemoryError(f'{doing}: out of memory ({reason}); {advice}')


def forget(error: BaseException | None) -> None:
    """Drop the frames of an error and of those it came from, except those still running."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def give_back_memory() -> None:
    """
    Free what nothing uses any more, and return it to the GPU's driver and the system.

    Also of what was frozen: it may be a policy that is closed.
    """
    gc.unfreeze()
    gc.collect()
    return_freed_memory()


def return_freed_memory() -> None:
    """Return to the GPU's driver and to the operating system what allocators still keep."""
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        # After an error of the GPU itself every call fails, and closing must still go on.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    # glibc keeps what small blocks freed: seen 460 MB after loading 134 M weights in NF4.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
