"""Length, loudness and end of generated music."""

import numpy as np
import pytest

from serving.backends.ray.engines.musicgen.sound import RATE_HZ, finished


@pytest.mark.parametrize("duration_s", [0.2, 1.0, 0.999])
def test_music_is_exactly_as_long_as_asked_for_and_silent_at_its_end(duration_s: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (32000, 1)).astype(np.float32)
    music = finished(noise, 32000, duration_s)
    assert music.shape == (round(duration_s * RATE_HZ), 2)
    assert music.dtype == np.float32
    assert np.array_equal(music[:, 0], music[:, 1])
    assert np.abs(music[-1]).max() < 1e-6
    assert np.abs(music[len(music) // 2]).max() > 0


def test_two_channels_stay_two() -> None:
    left, right = np.zeros((3200, 1), np.float32), np.ones((3200, 1), np.float32) * 0.5
    music = finished(np.hstack([left, right]), 32000, 0.1)
    assert np.abs(music[:, 0]).max() == 0
    assert music[1000, 1] == pytest.approx(0.5, abs=0.01)


def test_peaks_over_full_scale_are_brought_under_it() -> None:
    loud = (np.sin(np.arange(32000) / 20) * 3).astype(np.float32)[:, None]
    assert np.abs(finished(loud, 32000, 1.0)).max() <= 0.981
