"""Signal processing that speech and music share: loudness, limiting, WAV; used by the espeak and synth engines.

The one invariant: pure numpy functions of their arguments, so equal input gives equal samples.
"""

import functools
import io
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""float32, (samples,) or (samples, channels), full scale 1."""

_FFT: Final = 1 << 17
_STEP: Final = 32
_HOPS_IN_BLOCK: Final = 4
_ABSOLUTE_GATE_LUFS: Final = -70.0
_RELATIVE_GATE_LU: Final = -10.0


def db(decibels: float) -> float:
    """Amplitude factor of a level in dB."""
    return float(10.0 ** (decibels / 20.0))


def loudness_lufs(samples: Samples, rate_hz: int) -> float:
    """Integrated loudness by ITU-R BS.1770-4: K-weighting, 400 ms blocks, 75 % overlap, both gates.

    Returns:
        LUFS; -70 for silence or less than 400 ms of sound.
    """
    hop = rate_hz // 10
    channels = samples[:, None] if samples.ndim == 1 else samples
    hops = [_hop_energies(channels[:, index], rate_hz, hop) for index in range(channels.shape[1])]
    energy = np.sum(hops, axis=0)
    if len(energy) < _HOPS_IN_BLOCK:
        return _ABSOLUTE_GATE_LUFS
    blocks = np.convolve(energy, np.ones(_HOPS_IN_BLOCK), "valid") / (_HOPS_IN_BLOCK * hop)
    level = -0.691 + 10 * np.log10(np.maximum(blocks, 1e-12))
    heard = blocks[level > _ABSOLUTE_GATE_LUFS]
    if not heard.size:
        return _ABSOLUTE_GATE_LUFS
    gate = -0.691 + 10 * np.log10(heard.mean()) + _RELATIVE_GATE_LU
    return float(-0.691 + 10 * np.log10(blocks[level > max(gate, _ABSOLUTE_GATE_LUFS)].mean()))


def _hop_energies(channel: Samples, rate_hz: int, hop: int) -> NDArray[np.float64]:
    """Energy of the K-weighted channel in every whole hop, filtered in segments through the FFT."""
    per_segment = (_FFT - rate_hz // 4) // hop * hop
    weighting = _k_weighting(_FFT, rate_hz)
    energies = []
    for start in range(0, len(channel) - hop + 1, per_segment):
        part = channel[start : start + per_segment]
        weighted = np.fft.irfft(np.fft.rfft(part, _FFT) * weighting, _FFT)
        whole = len(part) // hop * hop
        energies.append(np.square(weighted[:whole]).reshape(-1, hop).sum(axis=1, dtype=np.float64))
    return np.concatenate(energies) if energies else np.zeros(0)


@functools.lru_cache(maxsize=8)
def _k_weighting(size: int, rate_hz: int) -> NDArray[np.complex64]:
    """Response of BS.1770's two filters, with the analogue prototypes of libebur128 for any rate."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    k = np.tan(np.pi * 1681.974450955533 / rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    shelf = (high + middle * k / q + k * k + 2 * (k * k - high) * z + (high - middle * k / q + k * k) * z**2) / (
        1 + k / q + k * k + 2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2
    )
    k, q = np.tan(np.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    highpass = (1 - 2 * z + z**2) / (
        1 + (2 * (k * k - 1) / (1 + k / q + k * k)) * z + ((1 - k / q + k * k) / (1 + k / q + k * k)) * z**2
    )
    return np.asarray(shelf * highpass, dtype=np.complex64)


def limit_peaks(samples: Samples, rate_hz: int, ceiling: float) -> Samples:
    """Turn the gain down smoothly (8 ms before and after) wherever a peak would pass ``ceiling``; changes in place."""
    frames = samples[:, None] if samples.ndim == 1 else samples
    steps = -(-len(frames) // _STEP)
    peaks = np.zeros(steps)
    for index in range(frames.shape[1]):
        padded = np.zeros(steps * _STEP, dtype=np.float32)
        np.abs(frames[:, index], out=padded[: len(frames)])
        np.maximum(peaks, padded.reshape(steps, _STEP).max(axis=1), out=peaks)
    if steps == 0 or peaks.max() <= ceiling:
        return samples
    reach = max(1, round(0.008 * rate_hz / _STEP))
    wanted = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-9))
    lowest = np.lib.stride_tricks.sliding_window_view(
        np.pad(wanted, 2 * reach + 1, constant_values=1.0), 2 * reach + 3
    ).min(axis=1)
    window = np.hanning(2 * reach + 3)[1:-1]
    smooth = np.convolve(lowest, window / window.sum(), "same")[reach : reach + steps]
    at = np.arange(len(frames), dtype=np.float32) / _STEP - 0.5
    gain = np.interp(at, np.arange(steps), smooth).astype(np.float32)
    frames *= gain[:, None]
    np.clip(frames, -ceiling, ceiling, out=frames)
    return samples


def convolve(samples: Samples, response: NDArray[np.float64]) -> NDArray[np.float32]:
    """Full convolution of (samples,) with a shorter (taps,), through the FFT: (samples + taps - 1,)."""
    length = len(samples) + len(response) - 1
    size = 1 << (length - 1).bit_length()
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[:length].astype(np.float32)


def wav_bytes(samples: Samples, rate_hz: int) -> bytes:
    """A 16-bit PCM WAV file."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()
