"""
A picture of an episode from its bag: frames of the camera with the policy's own plan.

Example: python -m vla_policy_node.evaluation.filmstrip out/demo/episode_bag episode.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

import cv2
import numpy as np
from rosbags.highlevel import AnyReader

from vla_policy_node import images
from vla_policy_node.bringup import CAMERA_TOPIC
from vla_policy_node.evaluation.plans import DrawnPlan
from vla_policy_node.evaluation.plans import read_plan

CHUNK_TOPIC = '/policy_node/action_chunk'

FRAMES = 6
_COLUMNS = 3
_FRAME_WIDTH = 480
_GAP = 10
_RING_RADIUS = 15
_MARGIN = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.55
# White on dark is legible on every picture.
_DARK, _WHITE = (20, 20, 20), (255, 255, 255)


def draw(bag: Path) -> np.ndarray:
    """
    Return the film strip of a bag, (H, W, 3) uint8 RGB, two rows of three frames.

    Raises ValueError when the bag has fewer camera frames than that.
    """
    frames, plans = _read(bag)
    if len(frames) < FRAMES:
        raise ValueError(f'expected at least {FRAMES} frames of {CAMERA_TOPIC} in {bag},'
                         f' found {len(frames)}')
    chosen = [frames[round(index * (len(frames) - 1) / (FRAMES - 1))] for index in range(FRAMES)]
    pictures = [_picture(message, read_plan(_newest(plans, received_ns)))
                for received_ns, message in chosen]
    rows = [_row(pictures[start:start + _COLUMNS]) for start in range(0, FRAMES, _COLUMNS)]
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([rows[0], *(part for row in rows[1:] for part in (gap, row))])


def _read(bag: Path) -> tuple[list, list]:
    """Return [(received, image message)] and [(received, plan)] in order of time [ns]."""
    frames, plans = [], []
    with AnyReader([bag]) as reader:
        wanted = [c for c in reader.connections if c.topic in (CAMERA_TOPIC, CHUNK_TOPIC)]
        for connection, received_ns, data in reader.messages(wanted):
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic == CAMERA_TOPIC:
                frames.append((received_ns, message))
            else:
                plans.append((received_ns, message.plan))
    return frames, plans


def _newest(plans: list[tuple[int, str]], received_ns: int) -> str:
    earlier = [plan for when, plan in plans if when <= received_ns]
    return earlier[-1] if earlier else ''


def _picture(message: object, plan: DrawnPlan) -> np.ndarray:
    rgb = images.to_rgb(message)
    height = round(rgb.shape[0] * _FRAME_WIDTH / rgb.shape[1])
    picture = cv2.resize(rgb, (_FRAME_WIDTH, height), interpolation=cv2.INTER_AREA)
    if plan.point is not None:
        x, y = round(plan.point[0] * _FRAME_WIDTH), round(plan.point[1] * height)
        _mark(picture, x, y)
        beside = 2 * _RING_RADIUS
        _write(picture, plan.label, x + beside if plan.point[0] < 0.6 else beside - x, y - beside)
    if plan.caption:
        _write(picture, plan.caption, _MARGIN, height)
    return picture


def _mark(picture: np.ndarray, x: int, y: int) -> None:
    """Draw a cross hair."""
    for colour, thickness in ((_DARK, 5), (_WHITE, 2)):
        cv2.circle(picture, (x, y), _RING_RADIUS, colour, thickness, cv2.LINE_AA)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            inner, outer = (
                (x + round(share * dx * _RING_RADIUS), y + round(share * dy * _RING_RADIUS))
                for share in (0.5, 1.9))
            cv2.line(picture, inner, outer, colour, thickness, cv2.LINE_AA)


def _write(picture: np.ndarray, text: str, x: int, y: int) -> None:
    """Write a line from x on, or ending at -x where that is negative, inside the picture."""
    # The font of OpenCV has no other characters.
    text = text.encode('ascii', 'replace').decode()
    (length, letters), _ = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    height, width = picture.shape[:2]
    left = max(_MARGIN, min(x if x > 0 else -x - length, width - _MARGIN - length))
    base = min(max(y, letters + _MARGIN), height - _MARGIN)
    cv2.rectangle(picture, (left - 4, base - letters - 4), (left + length + 4, base + 5),
                  _DARK, cv2.FILLED)
    cv2.putText(picture, text, (left, base), _FONT, _FONT_SCALE, _WHITE, 1, cv2.LINE_AA)


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures[1:] for part in (gap, picture)]
    return np.concatenate([pictures[0], *parts], axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the film strip of a bag as PNG; returns the exit status."""
    parser = argparse.ArgumentParser(prog='filmstrip', description=__doc__.split('\n')[1])
    parser.add_argument('bag', type=Path)
    parser.add_argument('picture', type=Path, help='PNG file to write')
    given = parser.parse_args(arguments)
    strip = draw(given.bag)
    if not cv2.imwrite(str(given.picture), cv2.cvtColor(strip, cv2.COLOR_RGB2BGR)):
        raise OSError(f'could not write {given.picture}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
