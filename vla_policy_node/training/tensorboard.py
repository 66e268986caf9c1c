"""What TensorBoard shows of a run: its numbers as curves, its pictures and its mixture."""

from collections.abc import Iterator
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla_policy_node.training.journal import LOG_NAME
from vla_policy_node.training.journal import read_journal
from vla_policy_node.training.journal import Record
from vla_policy_node.training.journal import Timeline

# Parts of a record that say what it is, or where it stands, rather than what was measured.
_NOT_MEASURED = frozenset({'kind', 'stage', 'step', 'of', 'samples', 'sources', 'detail', 'name'})
_MEASURED_ON_UNSEEN = frozenset({'held_out', 'per_verb', 'successes', 'episodes',
                                 'nearest_block_is_target'})

_LOGGER = logging.getLogger(__name__)


class TensorBoard:
    """
    A sink of the journal: event files in `folder`/tensorboard.

    Steps add up over the stages. A resumed run hides what it repeats. A full disk ends these
    curves with one warning, not the training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        before = read_journal(folder) if (folder / LOG_NAME).exists() else []
        self._resumed = bool(before)
        self._timeline = Timeline(before)
        self._writer: Any = None
        self._failed = False

    def __call__(self, record: Record) -> None:
        """Write one record."""
        if self._failed:
            return
        step = self._timeline.place(record)
        try:
            self._write(record, step)
        except OSError as error:
            self._failed = True
            _LOGGER.warning('TensorBoard gets no more records: %s', error)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None and not self._failed:
            self._writer.close()

    def _write(self, record: Record, step: int) -> None:
        if self._writer is None:
            self._writer = self._open(step)
        if record.get('kind') == 'mixture':
            self._writer.add_text('mixture', mixture_markdown(record), step)
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, step)
        for index, sample in enumerate(record.get('samples') or ()):
            path = self._folder / sample['picture']
            if path.is_file():
                picture = np.asarray(Image.open(path).convert('RGB'))
                self._writer.add_image(
                    f'validation/pictures/{index}', picture, step, dataformats='HWC')

    def _open(self, step: int) -> Any:
        # Imported with the first record: it takes a second that a refused configuration need not.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(
            str(self._folder / 'tensorboard'), purge_step=step if self._resumed else None,
            flush_secs=30)


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yield (name of the curve, value): train/loss/robot, validation/token_accuracy/x, ..."""
    if record.get('kind') == 'event':
        return
    usual = 'validation' if record.get('kind') == 'validation' else 'train'
    for name, value in record.items():
        room = 'validation' if name in _MEASURED_ON_UNSEEN else usual
        if name == 'per_verb':
            value = {verb: good / count for verb, (good, count) in value.items() if count}
            name = 'success'
        if name not in _NOT_MEASURED:
            yield from _flat(f'{room}/{name}', value)


def mixture_markdown(record: Record) -> str:
    """Return the mixture as a table for TensorBoard."""
    rows = [f"| {s['name']} | {s['records']} | {s['share']:.1%} | {s['seen_per_record']:.2f} |"
            for s in record['sources']]
    return '\n'.join(
        ['| source | records | share | seen per record |', '|---|---|---|---|', *rows])


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for part, item in value.items():
            yield from _flat(f'{name}/{part}', item)
    elif isinstance(value, int | float):
        yield name, float(value)
