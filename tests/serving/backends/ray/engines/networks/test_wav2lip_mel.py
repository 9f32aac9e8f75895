"""The sound is heard as librosa hears it, and each video frame gets its window."""

from pathlib import Path

import numpy as np
import pytest

from serving.backends.ray.engines.networks.wav2lip_mel import (
    HOP,
    SAMPLE_RATE_HZ,
    centred_windows,
    mel_filters,
    mel_spectrum,
    windows,
)

LIBROSA = np.load(Path(__file__).parent / "librosa_mel.npy")
"""Every fourth frame of librosa 0.11's answer, with the same parameters and ``pad_mode="reflect"``, to ``sound()``."""


def sound() -> np.ndarray:
    t = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(7).standard_normal(SAMPLE_RATE_HZ)
    return (0.3 * np.sin(2 * np.pi * (200 * t + 1500 * t * t)) + 0.02 * noise).astype(np.float32)


def numbered(frames: int) -> np.ndarray:
    """A spectrum whose values are the numbers of its frames."""
    return np.broadcast_to(np.arange(frames, dtype=np.float32), (80, frames))


def test_the_spectrum_is_librosas() -> None:
    assert np.abs(mel_spectrum(sound())[:, ::4] - LIBROSA).max() < 2e-5


def test_the_filters_are_those_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(401, 80, 55.0, 7600.0, 16000, norm="slaney", mel_scale="slaney").T
    assert np.abs(mel_filters() - theirs).max() < 1e-8


def test_silence_lies_at_the_bottom_of_the_range_and_noise_within_it() -> None:
    assert (mel_spectrum(np.zeros(4000, np.float32)) == -4).all()
    loud = mel_spectrum(np.random.default_rng(0).uniform(-1, 1, 16000).astype(np.float32))
    assert loud.min() >= -4
    assert loud.max() <= 4


def test_there_is_a_frame_every_200_samples() -> None:
    assert mel_spectrum(sound()[:4000]).shape == (80, 21)


def test_long_sounds_are_cut_into_pieces_without_a_seam() -> None:
    long = np.tile(sound(), 60)
    cut = mel_spectrum(long)
    assert cut.shape == (80, 1 + len(long) // HOP)
    begin = 4090 * HOP
    near = mel_spectrum(long[begin : begin + 4000])
    assert np.abs(cut[:, 4093:4107] - near[:, 3:17]).max() < 1e-4


def test_too_short_a_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="400 samples are too few"):
        mel_spectrum(np.zeros(400, np.float32))


def test_windows_start_with_their_video_frame_and_stop_at_the_end_of_the_sound() -> None:
    cut = windows(numbered(81), 30, 25)
    assert cut.shape == (30, 80, 16)
    assert cut[[0, 1, 2, 10], 0, 0].tolist() == [0, 3, 6, 32]
    assert cut[10, 0].tolist() == list(range(32, 48))
    assert cut[29, 0].tolist() == list(range(65, 81))


def test_centred_windows_start_two_frames_earlier_and_repeat_the_ends() -> None:
    cut = centred_windows(numbered(81), 26, 25)
    assert cut[0, 0].tolist() == [0] * 7 + list(range(1, 10))
    assert cut[10, 0].tolist() == list(range(25, 41))
    assert cut[25, 0].tolist() == [*range(73, 81), *[80] * 8]


def test_a_sound_shorter_than_a_window_is_filled_up() -> None:
    assert windows(numbered(5), 1, 25)[0, 0].tolist() == [0, 1, 2, 3, 4, *[4] * 11]
