"""
What CUDA graphs do, on a CPU: operations are taped once and repeated on the same tensors.

Python does not run again, shapes and addresses are those of the tape, and asking for a value while
taping fails, as it does on a GPU.
"""

from unittest import mock

import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.utils import import_utils

_ASKING = {
    torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default, torch.ops.aten.is_nonzero.default,
    torch.ops.aten.masked_select.default}


class TapedGraphs:
    """Makes graphs of work; counts what it made and what it could not."""

    def __init__(self):
        self.made = 0
        self.refused = 0

    def __call__(self, work):
        tape = _Tape()
        # transformers asks whether a GPU is recording, and then asks it for no values.
        with mock.patch.object(import_utils, 'is_cuda_stream_capturing', lambda: True):
            try:
                with tape:
                    work()
            except RuntimeError:
                self.refused += 1
                raise
        self.made += 1
        return tape.replay


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _ASKING or _picks_by_truth(func, args):
            raise RuntimeError(f'{func} is not permitted while recording')
        result = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, result))
        return result

    def replay(self):
        for func, args, kwargs, result in self._operations:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _picks_by_truth(func, args):
    """Tell whether an index is boolean, so that the size of the result is a value."""
    return func is torch.ops.aten.index.Tensor and any(
        index is not None and index.dtype == torch.bool for index in args[1])


def _tensors(tree):
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
