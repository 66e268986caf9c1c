"""
The record of one replay: what summary.json says, from what was replayed.

An estimate is {'value', 'interval_95': [low, high] or None, 'count'}; a group is a
dimension, 'translation', 'rotation' or, except for l1 and rmse, 'overall'.

'format_version', 'name', 'horizon' (actions per chunk), 'units', 'settings', 'meta'.
'evaluable': whether anything could be compared; 'reason' says why not.
'frames': 'replayed', 'compared', 'decoding_failed', 'recording_unusable' (their first
  action); 'numbers': 'compared' of 'all'.
'skipped': as given. 'interval': 'level', 'samples', 'seed', 'episodes', and 'reason' where
  there are none.
'metrics': {'policy', 'zero_action', 'previous_action', 'dataset_mean'} -> {'name',
  'token_accuracy', 'within_<n>_bins', 'l1', 'rmse', 'nrmse': {group: estimate};
  'direction_cosine': {'translation', 'rotation'}; 'gripper_f1': {'closed', 'open'};
  'gripper_events': 'recorded', 'predicted', 'matched', 'missed', 'extra', 'signed_s' and
  'absolute_s' (estimates of the mean), 'median_signed_s', 'median_absolute_s'}.
'horizon_curve': {'token_accuracy', 'nrmse'} -> {policy and baselines: [estimate per step]}.
'calibration': 'error' and 'error_within_<n>_bins': {group: estimate}; 'reliability' and
  'reliability_within_<n>_bins': parts of [0, 1] over all dimensions.
'latency_ms': 'p50', 'p95', 'p99', 'mean', 'count'; 'timing_ms': the same per part;
  'rate_hz': 1000 by the mean latency. 'live': as replayed, arrays as percentiles.
'episodes': [{'number', 'frames', 'compared', 'token_accuracy', 'nrmse'}].
'against': as of comparison.compare, or None.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math

import numpy as np

from vla_policy_node.evaluation.replay.baselines import baselines
from vla_policy_node.evaluation.replay.baselines import ToBins
from vla_policy_node.evaluation.replay.calibration import calibration_tally
from vla_policy_node.evaluation.replay.calibration import reliability
from vla_policy_node.evaluation.replay.comparison import compare
from vla_policy_node.evaluation.replay.events import EpisodeEvents
from vla_policy_node.evaluation.replay.events import gripper_events
from vla_policy_node.evaluation.replay.intervals import estimates
from vla_policy_node.evaluation.replay.intervals import LEVEL
from vla_policy_node.evaluation.replay.intervals import resample
from vla_policy_node.evaluation.replay.metrics import action_tallies
from vla_policy_node.evaluation.replay.metrics import event_timing
from vla_policy_node.evaluation.replay.metrics import nrmse
from vla_policy_node.evaluation.replay.metrics import select
from vla_policy_node.evaluation.replay.metrics import Selection
from vla_policy_node.evaluation.replay.metrics import token_accuracy
from vla_policy_node.evaluation.replay.metrics import within_name
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.evaluation.replay.settings import MetricSettings
from vla_policy_node.evaluation.statistics import percentiles

FORMAT_VERSION = 1

ONE_EPISODE = 'with one episode, how much episodes differ is not known'
NOTHING = 'nothing could be evaluated: no frame has both a recorded action and a prediction'


def summarise(
    replayed: Replayed, *, against: Replayed | None, skipped: Mapping[str, int],
    meta: Mapping[str, object], to_bins: ToBins | None = None,
    settings: MetricSettings | None = None,
) -> dict:
    """
    Return summary.json as plain values, None for every number that does not exist.

    skipped: reason in words -> how many frames or messages the reader left out. meta: copied;
    the page shows it under "What was run", 'warnings' (a list of lines) at its top, and takes
    'episodes', a list of {'number', 'bag', 'instruction'}, as the episodes' names. to_bins: how
    the checkpoint encodes canonical actions, (M, 7) finite float64 -> (M, 7) int64; without it
    baselines have no token metrics.
    settings: None for the defaults.

    The keys are described at the head of this module.
    """
    settings = settings or MetricSettings()
    selection = select(replayed, replayed.comparable())
    weights = resample(len(selection.episodes), samples=settings.bootstrap_samples,
                       seed=settings.seed)
    rivals = {'policy': replayed, **baselines(replayed, to_bins)}
    latency = spread(replayed.latency_ms)
    evaluable = bool(selection.mask.any())
    return plain({
        'format_version': FORMAT_VERSION,
        'name': replayed.name,
        'horizon': replayed.horizon,
        'units': {'translation': 'm', 'rotation': 'rad', 'gripper': '0 closed to 1 open'},
        'settings': _settings(settings),
        'evaluable': evaluable,
        'reason': None if evaluable else NOTHING,
        'frames': _frames(replayed, selection),
        'numbers': {'all': selection.mask.size, 'compared': int(selection.mask.sum())},
        'skipped': dict(skipped),
        'interval': _interval(selection, settings),
        'metrics': {key: _metrics(rival, settings, selection.episodes, weights)
                    for key, rival in rivals.items()},
        'horizon_curve': _horizon_curve(rivals, selection.episodes, weights),
        'calibration': _calibration(selection, settings, weights),
        'latency_ms': latency,
        'timing_ms': {part: spread(values) for part, values in replayed.timing_ms.items()},
        'rate_hz': 1000.0 / latency['mean'] if latency['mean'] else None,
        'live': None if replayed.live is None else live_spreads(replayed.live),
        'episodes': _episodes(selection),
        'against': None if against is None else compare(replayed, against, settings),
        'meta': dict(meta),
    })


def plain(value: object) -> object:
    """Return a value as JSON takes it: numpy's numbers and arrays as Python's, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def spread(values: np.ndarray) -> dict[str, float | int | None]:
    """Return 'p50', 'p95', 'p99', 'mean' and 'count' of the finite values (M,)."""
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    return {**percentiles(known.tolist()), 'mean': float(known.mean()) if known.size else None,
            'count': known.size}


def _settings(settings: MetricSettings) -> dict:
    return {name: getattr(settings, name) for name in settings.__slots__}


def _frames(replayed: Replayed, selection: Selection) -> dict[str, int]:
    return {
        'replayed': replayed.frames,
        'compared': int(selection.mask.any(axis=(1, 2)).sum()),
        'decoding_failed': int((~np.isfinite(replayed.predicted)).all(axis=(1, 2)).sum()),
        'recording_unusable': int((~np.isfinite(replayed.recorded[:, :1])).all((1, 2)).sum()),
    }


def _interval(selection: Selection, settings: MetricSettings) -> dict:
    episodes = len(selection.episodes)
    reason = None if episodes > 1 else ONE_EPISODE if episodes else NOTHING
    return {'level': LEVEL, 'samples': settings.bootstrap_samples, 'seed': settings.seed,
            'episodes': episodes, 'reason': reason}


def _metrics(
    rival: Replayed, settings: MetricSettings, episodes: np.ndarray, weights: np.ndarray | None,
) -> dict:
    """Return the metrics of the policy or of a baseline over the policy's episodes."""
    selection = select(rival, rival.comparable(), episodes)
    events = gripper_events(rival, selection.mask, settings.event_window_s, episodes)
    tallies = action_tallies(selection, settings)
    return {
        'name': rival.name,
        **{key: estimates(tally, weights) for key, tally in tallies.items()},
        'gripper_events': _events(events, weights),
    }


def _events(events: Sequence[EpisodeEvents], weights: np.ndarray | None) -> dict:
    matched = np.concatenate([part.errors_s for part in events] or [np.empty(0)])
    recorded = sum(part.recorded for part in events)
    predicted = sum(part.predicted for part in events)
    return {
        'recorded': recorded, 'predicted': predicted, 'matched': len(matched),
        'missed': recorded - len(matched), 'extra': predicted - len(matched),
        **estimates(event_timing(events), weights),
        'median_signed_s': float(np.median(matched)) if len(matched) else None,
        'median_absolute_s': float(np.median(np.abs(matched))) if len(matched) else None,
    }


def _horizon_curve(
    rivals: Mapping[str, Replayed], episodes: np.ndarray, weights: np.ndarray | None,
) -> dict:
    curves: dict[str, dict] = {'token_accuracy': {}, 'nrmse': {}}
    for key, rival in rivals.items():
        selection = select(rival, rival.comparable(), episodes)
        steps = [selection.step(place) for place in range(rival.horizon)]
        curves['token_accuracy'][key] = [
            estimates(token_accuracy(step, 0), weights)['overall'] for step in steps]
        curves['nrmse'][key] = [estimates(nrmse(step), weights)['overall'] for step in steps]
    return curves


def _calibration(
    selection: Selection, settings: MetricSettings, weights: np.ndarray | None,
) -> dict:
    found = {}
    for distance in (0, *settings.within_bins):
        end = f'_{within_name(distance)}' if distance else ''
        tally = calibration_tally(selection, distance, settings.calibration_bins)
        found[f'error{end}'] = estimates(tally, weights)
        found[f'reliability{end}'] = reliability(tally, 'overall', settings.calibration_bins)
    return found


def live_spreads(live: Mapping[str, object]) -> dict:
    """Return figures of live mode with `spread` in place of arrays."""
    return {name: spread(value) if isinstance(value, np.ndarray | list | tuple) else value
            for name, value in live.items()}


def _episodes(selection: Selection) -> list[dict]:
    replayed = selection.replayed
    accuracy = token_accuracy(selection, 0)
    distance = nrmse(selection)
    place = accuracy.names.index('overall')
    compared = selection.mask.any(axis=(1, 2))
    return [{
        'number': int(number),
        'frames': int((replayed.episode == number).sum()),
        'compared': int((compared & (replayed.episode == number)).sum()),
        'token_accuracy': values[0], 'nrmse': values[1],
    } for number, *values in zip(
        selection.episodes, accuracy.per_episode()[:, place], distance.per_episode()[:, place],
        strict=True)]
