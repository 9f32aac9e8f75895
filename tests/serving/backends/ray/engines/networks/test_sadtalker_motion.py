"""Blinks, pieces and smoothing around SadTalker's networks."""

from pathlib import Path

import numpy as np
import pytest

from serving.backends.ray.engines.networks.sadtalker_motion import blinks, joined, latents, pieces, smoothed

SCIPY = np.load(Path(__file__).parent / "scipy_savgol.npy")
"""What scipy 1.17's savgol_filter(track, 13, 2, axis=0) makes of ``track()``."""


def track() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)


def test_smoothing_is_scipys() -> None:
    assert np.abs(smoothed(track()) - SCIPY).max() < 1e-5


def test_a_short_track_is_smoothed_over_fewer_frames_and_keeps_its_length() -> None:
    for frames in range(1, 14):
        assert smoothed(track()[:frames]).shape == (frames, 6)
    assert np.array_equal(smoothed(track()[:2]), track()[:2])


def test_a_parabola_is_smooth_already() -> None:
    t = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    assert np.abs(smoothed(t * t) - t * t).max() < 1e-5


def test_eyes_blink_by_the_seed_and_start_open() -> None:
    closed = blinks(500, 1)
    assert closed.shape == (500,)
    assert closed.max() == 1
    assert closed[:10].max() == 0
    assert np.array_equal(closed, blinks(500, 1))
    assert not np.array_equal(closed, blinks(500, 2))
    assert np.array_equal(blinks(300, 1)[:290], closed[:290])


def test_no_clip_ends_in_the_middle_of_a_blink() -> None:
    assert all(blinks(frames, 4)[-1] == 0 for frames in range(1, 120))


def numbered(frames: int) -> np.ndarray:
    return np.arange(frames, dtype=np.float32)[:, None, None].repeat(2, axis=1)


def test_what_is_left_over_is_heard_with_the_frames_before_it() -> None:
    cut = pieces(numbered(70), 32)
    assert cut.shape == (3, 32, 2, 1)
    assert cut[:, 0, 0, 0].tolist() == [0, 32, 38]


def test_a_sound_shorter_than_a_piece_is_filled_up() -> None:
    assert pieces(numbered(5), 32)[0, 3:6, 0, 0].tolist() == [3, 4, 4]


@pytest.mark.parametrize("frames", [1, 5, 31, 32, 33, 64, 70, 95])
def test_pieces_join_to_what_was_cut(frames: int) -> None:
    assert np.array_equal(joined(pieces(numbered(frames), 32)[..., 0], frames), numbered(frames)[..., 0])


def test_a_longer_clip_begins_with_the_chance_of_a_shorter_one() -> None:
    assert np.array_equal(latents(2, 64, 9), latents(5, 64, 9)[:2])
    assert not np.array_equal(latents(2, 64, 9), latents(2, 64, 8))
