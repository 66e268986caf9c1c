"""Writes tiny LeRobot data sets in the real formats: two episodes of 4 and 3 steps at 10 fps."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy_node.training.convert.mp4 import scheduling_kept

FPS = 10
LENGTHS = (4, 3)
TASKS = ('open the drawer', 'close the drawer')
CAMERA = 'observation.images.front'
SHADES = ((10, 60, 110, 160), (210, 30, 80))   # the grey of every frame, per episode
ACTIONS = np.array([
    [0.01, 0.00, -0.01, 0.0, 0.0, 0.1, 0.0],
    [0.02, 0.00, -0.01, 0.0, 0.0, 0.1, 0.0],
    [0.03, 0.00, -0.01, 0.0, 0.0, 0.1, 1.0],
    [0.04, 0.00, -0.01, 0.0, 0.0, 0.1, 1.0],
    [0.00, 0.05, 0.00, 0.2, 0.0, 0.0, 1.0],
    [0.00, 0.06, 0.00, 0.2, 0.0, 0.0, 0.0],
    [0.00, 0.07, 0.00, 0.2, 0.0, 0.0, 0.0]])

V2_DATA = 'data/chunk-000/episode_{:06d}.parquet'
V2_VIDEO = 'videos/chunk-000/' + CAMERA + '/episode_{:06d}.mp4'
V3_DATA = 'data/chunk-000/file-000.parquet'
V3_VIDEO = f'videos/{CAMERA}/chunk-000/file-000.mp4'


def picture(shade: int) -> np.ndarray:
    """Return a (48, 64, 3) uint8 picture of one grey, brighter at the right."""
    image = np.full((48, 64, 3), shade, np.uint8)
    image[:, 32:] += 40
    return image


def write_video(path: Path, shades: Sequence[int], codec: str = 'libx264', gop: int = 2) -> None:
    """Encode pictures at 10 fps as LeRobot does: yuv420p, a keyframe every `gop`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with scheduling_kept(), av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=FPS, options={'g': str(gop), 'crf': '10'})
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for shade in shades:
            frame = av.VideoFrame.from_ndarray(picture(shade), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_v21(
    root: Path, *, actions: np.ndarray = ACTIONS, tasks: Sequence[str] = TASKS,
    pictures: bool = False, **features: dict[str, Any],
) -> Path:
    """Write version 2.1: a parquet file and a video per episode; or pictures in the parquet."""
    _write_info(root, 'v2.1', actions, pictures, features, data_path=(
        'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'), video_path=(
        'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'))
    _write_lines(root / 'meta/tasks.jsonl', [
        {'task_index': index, 'task': task} for index, task in enumerate(tasks)])
    _write_lines(root / 'meta/episodes.jsonl', [
        {'episode_index': index, 'tasks': [task], 'length': length}
        for index, (task, length) in enumerate(zip(tasks, LENGTHS, strict=True))])
    for episode, shades in enumerate(SHADES):
        write_table(root / V2_DATA.format(episode), _steps([episode], actions, pictures))
        if not pictures:
            write_video(root / V2_VIDEO.format(episode), shades)
    return root


def write_v30(root: Path, *, codec: str = 'libx264', pictures: bool = False) -> Path:
    """Write version 3.0: all episodes in one parquet file, and in one video."""
    _write_info(root, 'v3.0', ACTIONS, pictures, {}, data_path=(
        'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'), video_path=(
        'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'))
    # As pandas writes a frame whose index has no name.
    write_table(root / 'meta/tasks.parquet', {
        'task_index': [0, 1], '__index_level_0__': list(TASKS)})
    write_table(root / 'meta/episodes/chunk-000/file-000.parquet', {
        'episode_index': [0, 1], 'tasks': [[task] for task in TASKS], 'length': list(LENGTHS),
        'data/chunk_index': [0, 0], 'data/file_index': [0, 0],
        'dataset_from_index': [0, 4], 'dataset_to_index': [4, 7],
        f'videos/{CAMERA}/chunk_index': [0, 0], f'videos/{CAMERA}/file_index': [0, 0],
        f'videos/{CAMERA}/from_timestamp': [0.0, 0.4], f'videos/{CAMERA}/to_timestamp': [0.4, 0.7],
        'stats/action/mean': [[0.0] * 7, [0.0] * 7]})
    write_table(root / V3_DATA, _steps([0, 1], ACTIONS, pictures), row_group_size=3)
    if not pictures:
        write_video(root / V3_VIDEO, [*SHADES[0], *SHADES[1]], codec)
    return root


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> None:
    """Write a parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def _steps(episodes: Sequence[int], actions: np.ndarray, pictures: bool) -> dict[str, Any]:
    episode = [e for e in episodes for _ in range(LENGTHS[e])]
    frame = [f for e in episodes for f in range(LENGTHS[e])]
    places = [sum(LENGTHS[:e]) + f for e, f in zip(episode, frame, strict=True)]
    columns = {
        'action': pa.array([[float(x) for x in actions[place]] for place in places],
                           pa.list_(pa.float32(), actions.shape[1])),
        'timestamp': pa.array([f / FPS for f in frame], pa.float32()),
        'frame_index': frame, 'episode_index': episode, 'index': places, 'task_index': episode}
    if pictures:
        columns[CAMERA] = [
            {'bytes': cv2.imencode('.png', picture(SHADES[e][f]))[1].tobytes(), 'path': None}
            for e, f in zip(episode, frame, strict=True)]
    return columns


def _write_info(
    root: Path, version: str, actions: np.ndarray, pictures: bool, features: dict[str, Any],
    **paths: str,
) -> None:
    path = root / 'meta/info.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    camera = {'dtype': 'image' if pictures else 'video', 'shape': [48, 64, 3],
              'names': ['height', 'width', 'channels']}
    number = {'dtype': 'int64', 'shape': [1], 'names': None}
    path.write_text(json.dumps({
        'codebase_version': version, 'robot_type': 'so100', 'total_episodes': 2,
        'total_frames': 7, 'total_tasks': 2, 'chunks_size': 1000, 'fps': FPS, **paths,
        'features': {
            'action': {'dtype': 'float32', 'shape': [actions.shape[1]], 'names': None},
            CAMERA: camera, 'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
            'frame_index': number, 'episode_index': number, 'index': number,
            'task_index': number, **features}}))


def _write_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
