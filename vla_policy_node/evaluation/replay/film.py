"""
The frames on which a policy was furthest off, with what was done and what it wanted drawn on.

The arrows are a compass at a fixed place of the picture, not a projection: where the gripper is
in the picture, only a calibrated camera would know.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
import math

import cv2
from markupsafe import Markup
import numpy as np

from vla_policy_node.evaluation.replay.metrics import scaled_errors
from vla_policy_node.evaluation.replay.results import Replayed
from vla_policy_node.statistics import nice_step

_PICTURE_WIDTH = 480
_JPEG_QUALITY = 80
# Of the longest motion in the film: the ring never stands for less.
_LEAST_REACH = 0.2
# Frames nearer to each other than this show the same moment.
_APART_S = 1.0

# Of the overlay, in hundredths of the picture's width.
_RADIUS = 11.0
_MARGIN = 3.0
_HEAD = 4.0
# A way shorter than this is a dot.
_SHORTEST = 1.5
_HIGH_X = _MARGIN + 2 * _RADIUS + 7.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorstFrame:
    """
    One frame of the film strip.

    picture: (H, W, 3) uint8 RGB. recorded, predicted: (K, 7) float64 canonical, NaN where there
    is none. caption: one line, plain text.
    """

    picture: np.ndarray
    recorded: np.ndarray
    predicted: np.ndarray
    caption: str


def frame_errors(replayed: Replayed) -> np.ndarray:
    """Return the RMS of the errors of each frame by the scale, (N,) float64; NaN without any."""
    scaled, known = scaled_errors(replayed.predicted - replayed.recorded, replayed.scale)
    mask = replayed.comparable() & known
    counts = mask.sum(axis=(1, 2))
    squares = np.where(mask, scaled ** 2, 0.0).sum(axis=(1, 2))
    return np.where(counts > 0, np.sqrt(squares / np.maximum(counts, 1)), np.nan)


def worst_frames(replayed: Replayed, count: int) -> list[int]:
    """
    Return at most `count` rows of the frames with the largest error, the largest first.

    Of frames of one episode within a second only the worst is taken.
    """
    found = frame_errors(replayed)
    order = np.argsort(-np.where(np.isfinite(found), found, -1.0), kind='stable')
    chosen: list[int] = []
    for row in order[:np.isfinite(found).sum()].tolist():
        if len(chosen) == count:
            break
        near = (replayed.episode[chosen] == replayed.episode[row]) & (
            np.abs(replayed.stamp_ns[chosen] - replayed.stamp_ns[row]) < _APART_S * 1e9)
        if not near.any():
            chosen.append(row)
    return chosen


def worst_frame(replayed: Replayed, row: int, picture: np.ndarray) -> WorstFrame:
    """Return one frame for the film strip; picture: (H, W, 3) uint8 RGB."""
    number = replayed.episode[row]
    start_ns = replayed.stamp_ns[replayed.episode == number].min()
    time_s = (replayed.stamp_ns[row] - start_ns) * 1e-9
    return WorstFrame(
        picture=picture, recorded=replayed.recorded[row], predicted=replayed.predicted[row],
        caption=f'episode {number}, {time_s:.1f} s')


def motion(frame: WorstFrame) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the recorded and predicted actions (M, 7) of the steps at which there are both.

    M is at most K; 0 where the frame has no step with all seven numbers of both.
    """
    both = (np.isfinite(frame.recorded) & np.isfinite(frame.predicted)).all(axis=1)
    return frame.recorded[both], frame.predicted[both]


def reaches_m(frames: Sequence[WorstFrame]) -> list[float]:
    """
    Return the length [m] that the ring of each frame's compass stands for: round, and enough.

    Motions much smaller than those of the other frames are not blown up.
    """
    longest = [max(float(np.linalg.norm(_way(actions), axis=1).max()) for actions in motion(frame))
               for frame in frames]
    least = max(_LEAST_REACH * max(longest, default=0.0), 1e-4)
    return [_rounded_up(max(length, least)) for length in longest]


def _rounded_up(length: float) -> float:
    step = nice_step(length, 8)
    return step * math.ceil(length / step - 1e-9)


def overlay(frame: WorstFrame, reach: float) -> Markup:
    """
    Draw the two translations over a picture: x ahead (up), y to the left, z beside them.

    A chunk is drawn as the way through its steps. reach: as of `reaches_m`.
    """
    height = 100.0 * frame.picture.shape[0] / frame.picture.shape[1]
    centre = _MARGIN + _RADIUS, height - _MARGIN - _RADIUS
    parts = [f'<svg class="compass" viewBox="0 0 100 {height:.2f}" role="img"'
             ' aria-label="recorded and predicted translation">', _ground(centre, reach)]
    for kind, actions, beside in zip(
            ('recorded', 'predicted'), motion(frame), (-2.2, 2.2), strict=True):
        way = _way(actions) / reach * _RADIUS
        if len(way) > 1:
            level = np.stack([centre[0] - way[:, 1], centre[1] - way[:, 0]], axis=1)
            high = np.array([[_HIGH_X + beside, centre[1]],
                             [_HIGH_X + beside, centre[1] - way[-1, 2]]])
            parts.append(f'<g class="{kind}">{_arrow(level)}{_arrow(high)}</g>')
    return Markup(''.join(parts) + '</svg>')


def data_uri(picture: np.ndarray) -> str:
    """Return a picture (H, W, 3) uint8 RGB as a small JPEG in a data URI."""
    width = min(_PICTURE_WIDTH, picture.shape[1])
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg.tobytes()).decode('ascii')


def _way(actions: np.ndarray) -> np.ndarray:
    """Return the places (M + 1, 3) that translations of (M, 7) actions lead through."""
    return np.concatenate([np.zeros((1, 3)), np.cumsum(actions[:, :3], axis=0)])


def _ground(centre: tuple[float, float], reach: float) -> str:
    x, y = centre
    top, bottom = y - _RADIUS, y + _RADIUS
    return (
        f'<rect class="ground" x="{x - _RADIUS - 2:.1f}" y="{top - 2:.1f}"'
        f' width="{_HIGH_X + 8 - x + _RADIUS:.1f}" height="{2 * _RADIUS + 4:.1f}" rx="3"/>'
        f'<path class="axes" d="M{x:.1f} {top:.1f}V{bottom:.1f}M{x - _RADIUS:.1f} {y:.1f}'
        f'h{2 * _RADIUS:.1f}M{_HIGH_X:.1f} {top:.1f}V{bottom:.1f}M{_HIGH_X - 2:.1f} {y:.1f}h4"/>'
        f'<circle class="axes" cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS:.1f}"/>'
        f'<text x="{x + 1.2:.1f}" y="{top + 4:.1f}">x</text>'
        f'<text x="{x - _RADIUS + 1:.1f}" y="{y - 1.2:.1f}">y</text>'
        f'<text x="{_HIGH_X + 3.4:.1f}" y="{top + 3:.1f}">z</text>'
        f'<text x="{_HIGH_X + 5:.1f}" y="{bottom + 0.5:.1f}" text-anchor="end">'
        f'{1e3 * reach:g} mm</text>')


def _arrow(points: np.ndarray) -> str:
    """Return an arrow through points (M, 2); a dot where it leads nowhere."""
    end, last = points[-1], points[-1] - points[-2]
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if steps.sum() < _SHORTEST or steps[-1] < 1e-9:
        return f'<circle class="end" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="1.1"/>'
    ahead = last / steps[-1]
    aside = np.array([-ahead[1], ahead[0]])
    size = min(_HEAD, 0.7 * steps.sum())
    head = [end, end - size * ahead + 0.55 * size * aside,
            end - size * ahead - 0.55 * size * aside]
    shaft = _text([*points[:-1], end - 0.5 * size * ahead])
    return (f'<polyline class="halo" points="{shaft}"/><polyline points="{shaft}"/>'
            f'<polygon points="{_text(head)}"/>')


def _text(points: Sequence[np.ndarray] | np.ndarray) -> str:
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
