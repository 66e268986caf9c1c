"""Any frame of a video is the one that decoding from the beginning gives."""

from pathlib import Path

import av
import numpy as np
import pytest

from vla_policy_node.training.convert.mp4 import scheduling_kept
from vla_policy_node.training.sources.videos import Video
from vla_policy_node.training.sources.videos import VideoError

FRAMES = 40
CODECS = {
    'AV1 as LeRobot writes it': ('libsvtav1', {'g': '2', 'crf': '30'}),
    'AV1 with far keyframes': ('libsvtav1', {'g': '16', 'crf': '30'}),
    'H.264 with one keyframe and B frames': ('libx264', {'g': '250', 'bf': '3'}),
    'H.264 without B frames': ('libx264', {'g': '12', 'bf': '0'}),
    'MPEG-4': ('mpeg4', {'g': '5'}),
}


def _encode(path: Path, codec: str, options: dict[str, str]) -> Path:
    rng = np.random.default_rng(0)
    with scheduling_kept(), av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, 'yuv420p'
        for _ in range(FRAMES):
            blocks = rng.integers(0, 256, (4, 4, 3), np.uint8)
            picture = blocks.repeat(16, axis=0).repeat(16, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope='module', params=CODECS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _encode(tmp_path_factory.mktemp('videos') / 'video.mp4', *CODECS[request.param])


def test_frames_in_any_order_are_those_of_decoding_from_the_beginning(path: Path) -> None:
    with av.open(str(path)) as container:
        wanted = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert len(wanted) == FRAMES
    video = Video(path)
    for index in np.random.default_rng(1).permutation(FRAMES):
        np.testing.assert_array_equal(video.frame_at(index / 30, 0.5 / 30), wanted[index])
    video.close()


def test_the_nearest_frame_is_taken(path: Path) -> None:
    video = Video(path)
    np.testing.assert_array_equal(
        video.frame_at(7.4 / 30, 0.5 / 30), video.frame_at(7 / 30, 0.5 / 30))
    np.testing.assert_array_equal(
        video.frame_at(6.6 / 30, 0.5 / 30), video.frame_at(7 / 30, 0.5 / 30))
    video.close()


def test_a_time_behind_the_end_names_the_last_frame(path: Path) -> None:
    with pytest.raises(VideoError, match='a frame at 5.000 s, found the nearest at 1.300 s'):
        Video(path).frame_at(5.0, 0.02)


@pytest.mark.parametrize('kept', [0, 10, 100, 500])
def test_a_file_cut_off_is_no_video(path: Path, tmp_path: Path, kept: int) -> None:
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(VideoError, match='expected a complete video, found'):
        Video(cut)


def test_a_file_that_is_absent_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match='No such file'):
        Video(tmp_path / 'absent.mp4')
