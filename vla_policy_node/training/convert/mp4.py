"""
Writes pictures as an MP4 video that single frames can be read from cheaply and exactly.

Every second frame is a keyframe, as in LeRobot's own videos, and no frame refers to a later one.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from contextlib import suppress
import ctypes
from dataclasses import dataclass
from fractions import Fraction
import os
from pathlib import Path
import threading
from typing import Any

import av
import numpy as np

from vla_policy_node.training.convert.finished import ConvertError

# ITU-R BT.601 with black at 16, as PyAV converts; written down so that no player guesses another.
_SMPTE170M = 6
_LIMITED_RANGE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """
    An encoder of FFmpeg by its name, and the codec's.

    odd_format: how colours are kept where a side is odd; else one sample stands for four pixels.
    """

    name: str
    codec: str
    options: Mapping[str, str]
    odd_format: str

    def pixel_format(self, size: tuple[int, int]) -> str:
        """Return how the colours of (height, width) pictures are kept."""
        return self.odd_format if any(side % 2 for side in size) else 'yuv420p'

    def describe(self, size: tuple[int, int], fps: int) -> dict[str, Any]:
        """Return what info.json says of a video of (height, width) pictures."""
        return {
            'video.height': size[0], 'video.width': size[1], 'video.channels': 3,
            'video.fps': fps, 'video.codec': self.codec,
            'video.pix_fmt': self.pixel_format(size), 'video.is_depth_map': False,
            'has_audio': False}


# H.264 is read everywhere; FFmpeg without it has AV1, which LeRobot itself writes.
ENCODERS = (
    Encoder(name='libx264', codec='h264', odd_format='yuv444p',
            options={'g': '2', 'bf': '0', 'crf': '23', 'preset': 'veryfast'}),
    Encoder(name='libsvtav1', codec='av1', odd_format='yuv420p',
            options={'g': '2', 'crf': '30', 'preset': '8'}),
)


def find_encoder() -> Encoder:
    """Return the first encoder that the installed PyAV has; ConvertError where it has none."""
    for encoder in ENCODERS:
        if encoder.name in av.codecs_available:
            return encoder
    raise ConvertError(
        f'expected PyAV with an encoder of {", ".join(e.name for e in ENCODERS)}, found none in '
        f'version {av.__version__}; install PyAV from PyPI')


class Mp4File:
    """
    One video of (height, width) pictures, frame n shown at n/fps exactly; a GrowingFile.

    rows: frames so far.
    """

    def __init__(self, path: Path, encoder: Encoder, *, fps: int, size: tuple[int, int]) -> None:
        self._container = av.open(str(path), 'w')
        self._stream = self._container.add_stream(
            encoder.name, rate=fps, options=dict(encoder.options))
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = encoder.pixel_format(size)
        context = self._stream.codec_context
        context.time_base = Fraction(1, fps)
        context.colorspace = context.color_primaries = context.color_trc = _SMPTE170M
        context.color_range = _LIMITED_RANGE
        self.rows = 0
        self._encoded = self._encoded_bytes = 0

    @property
    def size(self) -> int:
        """Bytes of the frames so far; those still in the encoder as large as the others."""
        return self._encoded_bytes * self.rows // max(1, self._encoded)

    def add(self, picture: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB picture."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
        frame.pts = self.rows
        frame.time_base = self._stream.codec_context.time_base
        self.rows += 1
        if self.rows > 1:
            self._write(frame)
            return
        with scheduling_kept():
            self._write(frame)

    def close(self) -> None:
        """Write the frames still in the encoder, and the index."""
        self._write(None)
        self._container.close()

    def _write(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._encoded += 1
            self._encoded_bytes += packet.size
            self._container.mux(packet)


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """
    Give every thread the scheduling that the caller had before.

    Run as root, SVT-AV1 puts the thread that opens it and its own at the highest real-time
    priority, where they keep everything else on the machine from running.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        # The C library notes what it was told of this thread, and passes it on to threads that
        # this one starts: those of Fast DDS look it up and put themselves there.
        ctypes.CDLL(None).pthread_setschedparam(
            ctypes.c_ulong(threading.get_ident()), policy,
            ctypes.byref(ctypes.c_int(parameters.sched_priority)))
        for thread in Path('/proc/self/task').iterdir():
            # One that ended since it was listed needs nothing.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, parameters)
