"""
Offline replay of a long recording: is it bound by the model, and does its memory stay flat?

Writes a bag of synthetic 640x480 frames and replays all of them with a checkpoint:

    . tools/env.sh && python benchmarks/replay.py --frames 10000

Prints a table and, as the last line, the same as JSON. Exit code 1 where a target is missed.
"""

import argparse
from collections.abc import Iterator
import json
import multiprocessing
import os
from pathlib import Path
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import psutil

from vla_policy_node.evaluation.recording import typestore
from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recorded import RecordedFrame

TARGETS = {'waiting_share_of_time': 0.10, 'reading_share_of_cpu': 0.10,
           'memory_above_model_mb': 500.0}

_CAMERA, _CHUNKS = '/camera/image_raw', '/policy_node/action_chunk'
_INSTRUCTION = 'pick up the red block'
_HEIGHT, _WIDTH = 480, 640
_FRAME_NS = 33_333_333
_START_NS = 1_700_000_000_000_000_000
# A recorded chunk every so many frames: 5 Hz beside a camera of 30 Hz.
_FRAMES_PER_CHUNK = 6
_EPISODE_FRAMES = 1000
_SAMPLE_S = 0.2
_MB = 1e6


def write_bag(path: Path, frames: int, encoding: str) -> None:
    """Write frames of a noisy scene that shifts, a pause every 1,000, and chunks beside them."""
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer

    store = typestore()
    compressed = encoding == 'jpeg'
    kinds = {_CAMERA: 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image',
             _CHUNKS: 'vla_msgs/msg/EndEffectorDeltaChunk'}
    scene = _scene()
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=store)
                       for topic, kind in kinds.items()}
        for number in range(frames):
            # The pause ends an episode.
            stamp_ns = _START_NS + number * _FRAME_NS + number // _EPISODE_FRAMES * 10 ** 10
            pixels = np.roll(scene, 3 * number, axis=1)
            message = _image(store.types, pixels, stamp_ns, compressed)
            writer.write(connections[_CAMERA], stamp_ns,
                         bytes(store.serialize_cdr(message, kinds[_CAMERA])))
            if number % _FRAMES_PER_CHUNK == 0:
                chunk = _chunk(store.types, number, stamp_ns)
                writer.write(connections[_CHUNKS], stamp_ns + 1,
                             bytes(store.serialize_cdr(chunk, kinds[_CHUNKS])))


def _scene() -> np.ndarray:
    """Return (480, 640, 3) uint8: a table with blocks, and the noise of a sensor."""
    noise = np.random.default_rng(0).normal(0.0, 6.0, (_HEIGHT, _WIDTH, 3))
    scene = np.linspace(90, 160, _HEIGHT)[:, None, None] + np.zeros((1, _WIDTH, 3))
    for column, colour in ((120, (200, 40, 40)), (300, (40, 200, 40)), (480, (40, 40, 200))):
        scene[280:340, column:column + 60] = colour
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def _image(types: dict, pixels: np.ndarray, stamp_ns: int, compressed: bool) -> object:
    header = _header(types, stamp_ns, 'camera')
    if compressed:
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        return types['sensor_msgs/msg/CompressedImage'](
            header=header, format='jpeg', data=jpeg.reshape(-1))
    return types['sensor_msgs/msg/Image'](
        header=header, height=_HEIGHT, width=_WIDTH, encoding='rgb8', is_bigendian=0,
        step=3 * _WIDTH, data=pixels.reshape(-1))


def _chunk(types: dict, number: int, stamp_ns: int) -> object:
    vector = types['geometry_msgs/msg/Vector3']
    delta = types['vla_msgs/msg/EndEffectorDelta'](
        translation=vector(0.01 * np.sin(0.1 * number), 0.0, 0.0), rotation=vector(0.0, 0.0, 0.0),
        gripper=1.0, terminate=False, confidence=np.ones(7, np.float32))
    header = _header(types, stamp_ns, 'base')
    return types['vla_msgs/msg/EndEffectorDeltaChunk'](
        header=header, observation_stamp=header.stamp, sequence=number,
        period=types['builtin_interfaces/msg/Duration'](0, 200_000_000), deltas=[delta],
        token_ids=np.zeros(0, np.int64), plan='')


def _header(types: dict, stamp_ns: int, frame: str) -> object:
    stamp = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10 ** 9))
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)


class TimedBags:
    """RecordedBags whose reading is measured, in whichever thread it happens."""

    def __init__(self, bags: RecordedBags) -> None:
        """Take opened bags."""
        self.reader_cpu_s = 0.0
        self.skipped = bags.skipped
        self._bags = bags

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield all steps of all episodes in order."""
        frames = self._bags.frames()
        while True:
            start_s = time.thread_time()
            frame = next(frames, None)
            self.reader_cpu_s += time.thread_time() - start_s
            if frame is None:
                return
            yield frame


class MemoryWatch:
    """Samples the memory that this process has in use, above what it had at the beginning."""

    def __init__(self) -> None:
        """Begin; the memory in use now is the model's."""
        self._process = psutil.Process()
        self.model_mb = self._process.memory_info().rss / _MB
        self.above_mb: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            self.above_mb.append(self._process.memory_info().rss / _MB - self.model_mb)


def _measure(options: SimpleNamespace, bag: Path) -> dict[str, object]:
    """Load the model, replay the bag, and return the figures."""
    from vla_policy_node.evaluation.replay.offline import run_offline
    from vla_policy_node.policy import load_policy
    from vla_policy_node.policy import Observation

    policy = load_policy(options.checkpoint, quantization=options.quantization)
    seen = {name: np.zeros((_HEIGHT, _WIDTH, 3), np.uint8) for name in policy.camera_names}
    policy.infer(Observation(images=seen, instruction=_INSTRUCTION))
    config = RecordedConfig.model_validate({
        'cameras': dict.fromkeys(policy.camera_names[:1], _CAMERA), 'actions': {'kind': 'chunk'},
        'instruction': {'text': _INSTRUCTION}, 'frames': {'every': options.every}})
    memory = MemoryWatch()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    bags = TimedBags(read_bags([bag], config, period_s=policy.action_space.period_s))
    index_s, index_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    run = run_offline(policy, bags, name='benchmark')
    cpu_s = time.process_time() - start_cpu_s
    memory.stop()
    policy.close()
    return _figures(options, run, memory, index_s=index_s, cpu_s=cpu_s,
                    reader_cpu_s=index_cpu_s + bags.reader_cpu_s)


def _figures(
    options: SimpleNamespace, run: object, memory: MemoryWatch, *, index_s: float,
    reader_cpu_s: float, cpu_s: float,
) -> dict[str, object]:
    frames, above = len(run.frames), np.array(memory.above_mb)
    return {
        'frames': frames, 'image': f'640x480 {options.encoding}', 'every': options.every,
        'checkpoint': Path(options.checkpoint).name, 'quantization': options.quantization,
        # The model's thread stands still while it waits, and before, while the bag is indexed.
        'waiting_share_of_time': (index_s + run.waited_s) / (index_s + run.wall_s),
        'index_s': index_s, 'wall_s': run.wall_s, 'waited_s': run.waited_s,
        'frames_per_s': frames / run.wall_s,
        'inference_ms_p50': float(np.median(run.replayed.latency_ms)),
        'reading_cpu_ms_per_frame': 1e3 * reader_cpu_s / frames,
        'reading_share_of_cpu': reader_cpu_s / cpu_s,
        'model_mb': memory.model_mb, 'memory_above_model_mb': float(above.max()),
        'memory_above_model_mb_by_quarter': [
            float(np.median(part)) for part in np.array_split(above, 4) if part.size],
        'processors': len(os.sched_getaffinity(0)), 'load_average': os.getloadavg()[0],
    }


def _print(figures: dict[str, object]) -> bool:
    """Print the table; return whether every target is met."""
    from rich.console import Console
    from rich.table import Table
    table = Table(title='offline replay')
    for title in ('figure', 'measured', 'target'):
        table.add_column(title)
    for name, value in figures.items():
        target = TARGETS.get(name)
        text = f'{value:.3g}' if isinstance(value, float) else str(value)
        if isinstance(value, list):
            text = ', '.join(f'{number:.0f}' for number in value)
        table.add_row(name.replace('_', ' '), text, f'<= {target:g}' if target else '')
    Console().print(table)
    print(json.dumps(figures))
    return all(figures[name] <= limit for name, limit in TARGETS.items())


def _parse() -> SimpleNamespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--frames', type=int, default=500, help='of the bag (default 500)')
    parser.add_argument('--every', type=int, default=1, help='every n-th is replayed (default 1)')
    parser.add_argument('--encoding', choices=('rgb8', 'jpeg'), default='rgb8')
    parser.add_argument('--checkpoint', default='models/tabletop')
    parser.add_argument('--quantization', default='nf4', choices=('none', 'nf4', 'int8'))
    parser.add_argument('--bag', type=Path, help='where the bag is written and left; an existing '
                        'one is used as it is (default: a temporary folder)')
    return parser.parse_args()


def main() -> int:
    """Write the bag where there is none, replay it, and print the figures."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix='replay_') as folder:
        bag = options.bag or Path(folder) / 'bag'
        if not bag.exists():
            # In another process, so that its memory is not counted.
            writing = multiprocessing.get_context('spawn').Process(
                target=write_bag, args=(bag, options.frames, options.encoding))
            writing.start()
            writing.join()
            if writing.exitcode:
                return 1
        return 0 if _print(_measure(options, bag)) else 1


if __name__ == '__main__':
    sys.exit(main())
