"""When the gripper opens and closes, and how the predicted moments lie to the recorded ones."""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.evaluation.replay.results import Replayed

# Canonical gripper: 0 closed, 1 open.
OPEN_FROM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeEvents:
    """
    The gripper's events of one episode.

    recorded, predicted: how many there are. errors_s: (M,) float64, predicted less recorded
    time of those that were matched, so late is positive.
    """

    recorded: int
    predicted: int
    errors_s: np.ndarray


def transitions(stamp_ns: np.ndarray, gripper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return when a gripper (T,) changed side at stamps (T,) ascending: times, and which way.

    times: (M,) int64, the stamp of the first frame on the new side. opening: (M,) bool.
    """
    is_open = gripper >= OPEN_FROM
    places = np.flatnonzero(is_open[1:] != is_open[:-1]) + 1
    return stamp_ns[places], is_open[places]


def match(
    recorded_ns: np.ndarray, predicted_ns: np.ndarray, window_s: float,
) -> np.ndarray:
    """
    Pair events of one direction one to one, closest pairs first.

    Returns the errors (M,) float64 [s], predicted less recorded, none beyond `window_s`.
    """
    apart = (predicted_ns[None, :] - recorded_ns[:, None]) * 1e-9
    rows, columns = np.nonzero(np.abs(apart) <= window_s)
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    errors = []
    for place in np.argsort(np.abs(apart[rows, columns]), kind='stable'):
        row, column = int(rows[place]), int(columns[place])
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            errors.append(float(apart[row, column]))
    return np.array(errors)


def gripper_events(
    replayed: Replayed, mask: np.ndarray, window_s: float, episodes: np.ndarray,
) -> list[EpisodeEvents]:
    """
    Return the events of each of `episodes`, from the first action of each chunk.

    mask: (N, K, 7) bool, what may be compared; a frame left out by it changes no side, so times
    are known to the distance of the compared frames.
    """
    usable = mask[:, 0, 6]
    return [_episode(replayed, usable & (replayed.episode == number), window_s)
            for number in episodes]


def _episode(replayed: Replayed, rows: np.ndarray, window_s: float) -> EpisodeEvents:
    places = np.flatnonzero(rows)
    places = places[np.argsort(replayed.stamp_ns[places], kind='stable')]
    stamps = replayed.stamp_ns[places]
    recorded_ns, recorded_open = transitions(stamps, replayed.recorded[places, 0, 6])
    predicted_ns, predicted_open = transitions(stamps, replayed.predicted[places, 0, 6])
    errors = [match(recorded_ns[recorded_open == way], predicted_ns[predicted_open == way],
                    window_s) for way in (False, True)]
    return EpisodeEvents(recorded=len(recorded_ns), predicted=len(predicted_ns),
                         errors_s=np.concatenate(errors))
