"""Sound that a pipeline made: numbers, length, rate, and the file."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from serving.backends.ray.engines.diffusion.sounds import FADE_S, at_rate, faded, of_length, stereo, write_wav
from serving.errors import EngineFailed


def tone(rate_hz: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)
    return np.stack([wave, wave], axis=1).astype(np.float32)


def test_one_channel_is_heard_on_both_sides_and_peaks_are_cut() -> None:
    found = stereo(torch.tensor([[0.5, -2.0, 2.0]], dtype=torch.bfloat16))
    assert found.dtype == np.float32
    assert found.tolist() == [[0.5, 0.5], [-1, -1], [1, 1]]


def test_values_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(EngineFailed, match="1 of 4 values that are no numbers"):
        stereo(torch.tensor([[0.0, float("nan")], [0.0, 0.0]]))


@pytest.mark.parametrize("samples", [0, 3, 9])
def test_sound_is_cut_or_continued_in_silence(samples: int) -> None:
    found = of_length(np.ones((5, 2), np.float32), samples)
    assert (len(found), found.sum()) == (samples, 2 * min(5, samples))


def test_another_rate_keeps_length_and_pitch() -> None:
    found = at_rate(tone(44_100), 44_100, 48_000)
    assert found.shape == (24_000, 2)
    assert np.abs(found - tone(48_000))[500:-500].max() < 1e-3
    assert at_rate(found, 48_000, 48_000) is found


@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_music_falls_silent_at_its_end_and_nowhere_else(seconds: float) -> None:
    sound = np.ones((int(48_000 * seconds), 2), np.float32)
    found = faded(sound, 48_000)
    assert np.abs(found[-1]).max() < 1e-6
    assert (np.diff(found[:, 0]) <= 0).all()
    assert (found[: max(0, len(sound) - int(FADE_S * 48_000))] == 1).all()


def test_a_file_is_16_bit_and_equal_sound_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = (write_wav(2 * tone(48_000), tmp_path / name, 48_000) for name in ("a.wav", "b.wav"))
    assert first.read_bytes() == second.read_bytes()
    told = soundfile.info(first)
    assert (told.subtype, told.samplerate, told.channels, told.frames) == ("PCM_16", 48_000, 2, 24_000)
    assert np.abs(soundfile.read(first)[0]).max() > 0.99
