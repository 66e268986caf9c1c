"""An .rrd file for the Rerun viewer: pictures, predicted and recorded actions on one time line."""

from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.recorded import RecordedFrame

_TIMELINE = 'recording'
_JPEG_QUALITY = 75


class RerunMissingError(ValueError):
    """The optional package is not installed."""


def import_rerun() -> ModuleType:
    """Return the package, or raise RerunMissingError saying how to get it."""
    try:
        import rerun
    except ImportError as error:
        raise RerunMissingError(
            f'--rrd: expected the Python package rerun, found none ({error}); pip install '
            'rerun-sdk, or leave --rrd out') from error
    return rerun


def write_rrd(
    path: Path, runs: Mapping[str, ReplayRun], frames: Iterable[RecordedFrame], rerun: ModuleType,
) -> None:
    """
    Write the first action of every frame, and the pictures, at the stamps of the frames.

    runs: name in the viewer -> what a policy answered; the first one's recorded actions are
    written too. rerun: the package, see import_rerun.
    """
    stream = rerun.RecordingStream('vla_policy_node replay')
    stream.save(str(path))
    first = next(iter(runs.values()))
    _log_actions(stream, rerun, 'recorded', first, first.replayed.recorded)
    for name, run in runs.items():
        _log_actions(stream, rerun, name, run, run.replayed.predicted)
    for frame in frames:
        stamp_ns = int(frame.episode.stamp_ns[frame.step])
        stream.set_time(_TIMELINE, timestamp=np.datetime64(stamp_ns, 'ns'))
        for camera, picture in frame.images.items():
            stream.log(f'camera/{camera}',
                       rerun.Image(picture).compress(jpeg_quality=_JPEG_QUALITY))
    stream.flush()
    stream.disconnect()


def _log_actions(
    stream: object, rerun: ModuleType, name: str, run: ReplayRun, actions: np.ndarray,
) -> None:
    known = np.isfinite(actions[:, 0]).all(axis=1)
    times = run.replayed.stamp_ns[known].astype('datetime64[ns]')
    for dimension, label in enumerate(DIM_NAMES):
        stream.send_columns(
            f'{label}/{name}', indexes=[rerun.TimeColumn(_TIMELINE, timestamp=times)],
            columns=rerun.Scalars.columns(scalars=actions[known, 0, dimension]))
