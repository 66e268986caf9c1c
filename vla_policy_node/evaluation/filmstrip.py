"""
A picture of an episode from its bag: frames of the camera with the policy's own target.

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
from vla_policy_node.evaluation.episodes import plan_point

CHUNK_TOPIC = '/policy_node/action_chunk'

FRAMES = 6
_COLUMNS = 3
_FRAME_WIDTH = 480
_GAP = 10
_RING_RADIUS = 15


def draw(bag: Path) -> np.ndarray:
    """
    Return the film strip of a bag, (H, W, 3) uint8 RGB, two rows of three frames.

    Raises ValueError when the bag has fewer camera frames than that.
    """
    frames, points = _read(bag)
    if len(frames) < FRAMES:
        raise ValueError(f'expected at least {FRAMES} frames of {CAMERA_TOPIC} in {bag},'
                         f' found {len(frames)}')
    chosen = [frames[round(index * (len(frames) - 1) / (FRAMES - 1))] for index in range(FRAMES)]
    pictures = [_picture(message, _newest(points, received_ns))
                for received_ns, message in chosen]
    rows = [_row(pictures[start:start + _COLUMNS]) for start in range(0, FRAMES, _COLUMNS)]
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([rows[0], *(part for row in rows[1:] for part in (gap, row))])


def _read(bag: Path) -> tuple[list, list]:
    """Return [(received, image message)] and [(received, plan point)] in order of time [ns]."""
    frames, points = [], []
    with AnyReader([bag]) as reader:
        wanted = [c for c in reader.connections if c.topic in (CAMERA_TOPIC, CHUNK_TOPIC)]
        for connection, received_ns, data in reader.messages(wanted):
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic == CAMERA_TOPIC:
                frames.append((received_ns, message))
            else:
                points.append((received_ns, plan_point(message.plan)))
    return frames, points


def _newest(points: list, received_ns: int) -> tuple[float, float] | None:
    earlier = [point for when, point in points if when <= received_ns]
    return earlier[-1] if earlier else None


def _picture(message: object, point: tuple[float, float] | None) -> np.ndarray:
    rgb = images.to_rgb(message)
    height = round(rgb.shape[0] * _FRAME_WIDTH / rgb.shape[1])
    picture = cv2.resize(rgb, (_FRAME_WIDTH, height), interpolation=cv2.INTER_AREA)
    if point is not None:
        centre = round(point[0] * _FRAME_WIDTH), round(point[1] * height)
        for colour, thickness in (((20, 20, 20), 5), ((255, 255, 255), 2)):
            cv2.circle(picture, centre, _RING_RADIUS, colour, thickness, cv2.LINE_AA)
    return picture


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
