"""Frames keep every column through saving, joining and choosing."""

from pathlib import Path

import numpy as np
from training_frames import BLUE
from training_frames import GREEN
from training_frames import make_frames
from training_frames import RED

from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    frames = make_frames(3)
    frames.save(tmp_path / 'deep' / 'frames.npz')
    loaded = Frames.load(tmp_path / 'deep' / 'frames.npz')
    assert loaded.fingerprint() == frames.fingerprint()
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['frames.npz']


def test_the_fingerprint_changes_with_one_pixel() -> None:
    frames, other = make_frames(2), make_frames(2)
    other.images[1, 5, 5, 0] ^= 1
    assert frames.fingerprint() != other.fingerprint()


def test_joining_keeps_the_order() -> None:
    joined = concatenate([make_frames(2), make_frames(3)])
    assert joined.scene.tolist() == [0, 1, 0, 1, 2]


def test_present_says_which_blocks_there_are() -> None:
    assert make_frames(1).present[0, [RED, GREEN, BLUE]].tolist() == [True, False, True]


def test_taking_none_mirrored_changes_nothing() -> None:
    frames = make_frames(2)
    same = frames.mirrored(np.zeros(2, bool), np.arange(16))
    assert same.fingerprint() == frames.fingerprint()


def test_mirroring_twice_is_the_identity() -> None:
    frames = make_frames(2)
    both, swap = np.ones(2, bool), np.r_[0:8, 12:16, 8:12]
    twice = frames.mirrored(both, swap).mirrored(both, swap)
    assert (twice.images == frames.images).all()
    assert np.allclose(twice.block_uv, frames.block_uv, atol=1e-6, equal_nan=True)
    assert np.array_equal(twice.actions, frames.actions, equal_nan=True)
