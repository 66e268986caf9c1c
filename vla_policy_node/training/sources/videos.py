"""
Single frames of a video by their time, exactly, without decoding what comes before the keyframe.

PyAV and not OpenCV, whose wheels cannot decode AV1, which LeRobot writes.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

# How far before the wanted time to seek, seconds: a keyframe may be shown later than it is stored.
_SEEK_BACK_S = (0.0, 2.0, 20.0, float('inf'))


class VideoError(ValueError):
    """A video, or a frame of it, cannot be read; the message says what was found."""


class Video:
    """An open video file. Raises VideoError where it cannot be opened or has no pictures."""

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path), metadata_errors='replace')
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f'expected a complete video, found {_one_line(error)}') from error
        streams = [stream for stream in self._container.streams.video if stream.codec_context]
        if not streams:
            self._container.close()
            raise VideoError('expected a video stream of a known codec, found none')
        self._stream = streams[0]
        # Sources are read by several worker processes; threads in each would only crowd them.
        self._stream.codec_context.thread_count = 1

    def frame_at(self, time_s: float, tolerance_s: float) -> np.ndarray:
        """
        Return the frame shown nearest to a time, (H, W, 3) uint8 RGB.

        Raises VideoError where none is within the tolerance [s] or the data are damaged.
        """
        nearest = None
        try:
            for back_s in _SEEK_BACK_S:
                nearest = self._nearest(time_s, back_s)
                if nearest is not None and nearest.time <= time_s + tolerance_s:
                    break
            if nearest is not None and abs(nearest.time - time_s) <= tolerance_s:
                return nearest.to_ndarray(format='rgb24')
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f'expected a frame at {time_s:.3f} s, found damaged data: '
                             f'{_one_line(error)}') from error
        found = 'no frame' if nearest is None else f'the nearest at {nearest.time:.3f} s'
        raise VideoError(f'expected a frame at {time_s:.3f} s, found {found}')

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _nearest(self, time_s: float, back_s: float) -> av.VideoFrame | None:
        start = max(0, int((time_s - back_s) / self._stream.time_base)) if (
            back_s < float('inf')) else 0
        self._container.seek(start, stream=self._stream, backward=True)
        nearest = None
        for frame in self._shown():
            if nearest is None or abs(frame.time - time_s) < abs(nearest.time - time_s):
                nearest = frame
            if frame.time >= time_s:
                break
        return nearest

    def _shown(self) -> Iterator[av.VideoFrame]:
        return (frame for frame in self._container.decode(self._stream) if frame.pts is not None)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
