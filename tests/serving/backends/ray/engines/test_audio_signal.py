"""Loudness agrees with ffmpeg's meter, the limiter holds its ceiling, convolution is exact."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serving.backends.ray.engines.audio_signal import convolve, db, limit_peaks, loudness_lufs, wav_bytes
from serving.media.loudness import measure_loudness


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (48_000, 2)])
async def test_loudness_agrees_with_ffmpeg(rate: int, channels: int, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    samples = random.normal(0, 0.05, (rate * 8, channels)).astype(np.float32)
    samples[2 * rate : 4 * rate] *= 4
    samples[6 * rate :] *= 1e-4
    soundfile.write(tmp_path / "noise.wav", samples, rate)
    reference = await measure_loudness(tmp_path / "noise.wav")
    assert loudness_lufs(samples, rate) == pytest.approx(reference.integrated_lufs, abs=0.15)


@pytest.mark.parametrize("count", [0, 100, 48_000])
def test_silence_and_moments_are_minus_seventy(count: int) -> None:
    assert loudness_lufs(np.zeros(count, dtype=np.float32), 48_000) == -70


def test_the_limiter_holds_the_ceiling_and_leaves_the_rest_alone() -> None:
    time = np.arange(48_000) / 48_000
    samples = (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
    samples *= (1 + 4 * np.exp(-(((time - 0.5) / 0.004) ** 2))).astype(np.float32)
    limited = limit_peaks(samples.copy(), 48_000, 0.5)
    assert np.abs(limited).max() <= 0.5
    assert np.allclose(limited[:20_000], samples[:20_000])
    assert np.allclose(limited[30_000:], samples[30_000:])
    assert np.abs(np.diff(limited)).max() < 0.08


def test_convolution_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    samples, response = random.normal(size=500).astype(np.float32), random.normal(size=60)
    assert np.allclose(convolve(samples, response), np.convolve(samples, response), atol=1e-4)


def test_a_wav_is_sixteen_bit_pcm(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.full(240, db(-6), dtype=np.float32), 24_000))
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (24_000, 1, 240, "PCM_16")
