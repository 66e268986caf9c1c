"""Two policies on the same frames: how often they agree, and which of them is nearer."""

from dataclasses import replace

import numpy as np

from vla_policy_node.evaluation.replay.calibration import calibration_tally
from vla_policy_node.evaluation.replay.events import gripper_events
from vla_policy_node.evaluation.replay.intervals import bounds_at
from vla_policy_node.evaluation.replay.intervals import estimates
from vla_policy_node.evaluation.replay.intervals import interval
from vla_policy_node.evaluation.replay.intervals import resample
from vla_policy_node.evaluation.replay.intervals import Tally
from vla_policy_node.evaluation.replay.metrics import action_tallies
from vla_policy_node.evaluation.replay.metrics import event_timing
from vla_policy_node.evaluation.replay.metrics import GROUPS
from vla_policy_node.evaluation.replay.metrics import mean_latency
from vla_policy_node.evaluation.replay.metrics import mean_tally
from vla_policy_node.evaluation.replay.metrics import nrmse
from vla_policy_node.evaluation.replay.metrics import select
from vla_policy_node.evaluation.replay.metrics import Selection
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.evaluation.replay.settings import MetricSettings

OTHER_BINS = ('the two checkpoints encode the same recorded actions as other bins, so equal bins'
              ' are not equal actions')
NO_BINS = 'no frame has bins of both checkpoints and of the recording'


def compare(replayed: Replayed, against: Replayed, settings: MetricSettings) -> dict:
    """
    Return what `against` does otherwise than `replayed` on the frames that both looked at.

    Keys: 'name', 'against': the two names. 'frames': {'both', 'only_first', 'only_against'}.
    'horizon': actions per chunk that are compared, the smaller of the two. 'same_recorded':
    whether both stand beside the same recorded actions. 'token_agreement': {group: estimate},
    or None with 'token_agreement_reason'. 'nrmse_between': {group: estimate} of the distance
    between the two predictions by the scale of the first. 'differences': {metric: {name:
    {'first', 'against', 'difference', 'interval_95', 'count'}}}, against less first, over the
    numbers that both can be measured on, with paired intervals: each resample draws the same
    episodes for both.
    """
    first, second, alone = _same_frames(replayed, against)
    second = replace(second, scale=first.scale)
    agreement, reason = _token_agreement(first, second, settings)
    between = select(replace(first, recorded=second.predicted),
                     np.isfinite(first.predicted) & np.isfinite(second.predicted))
    return {
        'name': replayed.name,
        'against': against.name,
        'frames': {'both': first.frames, 'only_first': replayed.frames - first.frames,
                   'only_against': alone},
        'horizon': first.horizon,
        'same_recorded': bool(np.array_equal(first.recorded, second.recorded, equal_nan=True)),
        'token_agreement': agreement,
        'token_agreement_reason': reason,
        'nrmse_between': estimates(nrmse(between), _weights(between, settings)),
        'differences': _differences(first, second, settings),
    }


def _same_frames(first: Replayed, second: Replayed) -> tuple[Replayed, Replayed, int]:
    """Return both on their common frames and actions, and how many frames only `second` has."""
    places = {key: row for row, key in enumerate(_keys(second))}
    pairs = [(row, places[key]) for row, key in enumerate(_keys(first)) if key in places]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    horizon = min(first.horizon, second.horizon)
    return (_take(first, rows[:, 0], horizon), _take(second, rows[:, 1], horizon),
            second.frames - len(rows))


def _keys(replayed: Replayed) -> list[tuple[int, int]]:
    return list(zip(replayed.episode.tolist(), replayed.stamp_ns.tolist(), strict=True))


def _take(replayed: Replayed, rows: np.ndarray, horizon: int) -> Replayed:
    chunks = {name: getattr(replayed, name)[rows, :horizon] for name in (
        'recorded', 'predicted', 'recorded_bins', 'predicted_bins', 'confidence')}
    frames = {name: getattr(replayed, name)[rows] for name in (
        'episode', 'stamp_ns', 'previous', 'latency_ms')}
    timing = {part: values[rows] for part, values in replayed.timing_ms.items()}
    return replace(replayed, **chunks, **frames, timing_ms=timing)


def _weights(selection: Selection, settings: MetricSettings) -> np.ndarray | None:
    return resample(len(selection.episodes), samples=settings.bootstrap_samples,
                    seed=settings.seed)


def _token_agreement(
    first: Replayed, second: Replayed, settings: MetricSettings,
) -> tuple[dict | None, str | None]:
    both = (first.recorded_bins >= 0) & (second.recorded_bins >= 0)
    if not both.any():
        return None, NO_BINS
    if not np.array_equal(first.recorded_bins[both], second.recorded_bins[both]):
        return None, OTHER_BINS
    answered = (first.predicted_bins >= 0) & (second.predicted_bins >= 0)
    selection = select(first, answered)
    equal = mean_tally(selection, first.predicted_bins == second.predicted_bins, answered, GROUPS)
    return estimates(equal, _weights(selection, settings)), None


def _differences(first: Replayed, second: Replayed, settings: MetricSettings) -> dict:
    mask = first.comparable() & second.comparable()
    selections = [select(replayed, mask) for replayed in (first, second)]
    weights = _weights(selections[0], settings)
    tallies = [_tallies(selection, settings) for selection in selections]
    return {name: _paired(tallies[0][name], tallies[1][name], weights) for name in tallies[0]}


def _tallies(selection: Selection, settings: MetricSettings) -> dict[str, Tally]:
    replayed, mask = selection.replayed, selection.mask
    events = gripper_events(replayed, mask, settings.event_window_s, selection.episodes)
    return {
        **action_tallies(selection, settings),
        'gripper_timing': event_timing(events),
        'calibration_error': calibration_tally(selection, 0, settings.calibration_bins),
        'latency_ms': mean_latency(selection, mask.any(axis=(1, 2))),
    }


def _paired(first: Tally, second: Tally, weights: np.ndarray | None) -> dict[str, dict]:
    values = first.value(), second.value()
    bounds = None if weights is None else interval(
        second.resampled(weights) - first.resampled(weights))
    return {
        name: {'first': float(values[0][place]), 'against': float(values[1][place]),
               'difference': float(values[1][place] - values[0][place]),
               'interval_95': bounds_at(bounds, place),
               'count': int(min(first.counts[place], second.counts[place]))}
        for place, name in enumerate(first.names)}
