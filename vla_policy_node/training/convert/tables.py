"""Parquet files of a LeRobot data set: steps, episodes and tasks."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy_node.action_space import ACTION_DIM


class TableFile:
    """A parquet file that tables of one schema are appended to; a GrowingFile."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open('wb')
        self._writer: pq.ParquetWriter | None = None
        self.schema: pa.Schema | None = None
        self.size = 0
        self.rows = 0

    def append(self, table: pa.Table) -> None:
        """Write a table as a row group of its own."""
        if self._writer is None:
            self.schema = table.schema
            self._writer = pq.ParquetWriter(self._stream, table.schema)
        self._writer.write_table(table)
        self.rows += len(table)
        self.size = self._stream.tell()

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()
        self._stream.close()


def step_columns(
    actions: np.ndarray, *, fps: int, episode: int, first: int, task: int,
) -> dict[str, np.ndarray]:
    """Return the numeric columns (n, D) of an episode, from (n, 7) float32 actions."""
    count = len(actions)
    frames = np.arange(count)
    return {
        'action': actions, 'timestamp': (frames / fps).astype(np.float32)[:, None],
        'frame_index': frames[:, None], 'episode_index': np.full((count, 1), episode),
        'index': first + frames[:, None], 'task_index': np.full((count, 1), task)}


def step_table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Return the columns of step_columns as LeRobot keeps them."""
    return pa.table({
        name: pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), ACTION_DIM)
        if name == 'action' else pa.array(column[:, 0]) for name, column in columns.items()})


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write the words of the tasks, which LeRobot reads as a pandas frame with words as index."""
    table = pa.table({'task_index': pa.array(range(len(tasks)), pa.int64()),
                      'task': pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({'pandas': json.dumps(_TASKS_FRAME)}), path)


def _column(name: str | None, kind: str, numpy_type: str) -> dict[str, Any]:
    return {'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy_type,
            'metadata': None}


# As the specification of pandas' metadata in Parquet says, pandas itself not being needed.
_TASKS_FRAME = {
    'index_columns': ['task'],
    'column_indexes': [{**_column(None, 'unicode', 'object'), 'metadata': {'encoding': 'UTF-8'}}],
    'columns': [_column('task_index', 'int64', 'int64'), _column('task', 'unicode', 'object')],
    'creator': {'library': 'pyarrow', 'version': pa.__version__}, 'pandas_version': '2.2.0'}
