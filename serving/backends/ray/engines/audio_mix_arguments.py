"""The filters of a mix, as pure builders: ducking under the voices, then gain and a limiter that hears true peaks.

The one invariant: every length is counted in samples at 48 kHz, so picture and sound cannot drift apart.
"""

from pathlib import Path
from typing import Final

from serving.media.ffmpeg import SAFE_INPUT
from serving.media.loudness import EBUR128, SILENCE_LUFS, Loudness

RATE_HZ: Final = 48_000
FADE_IN_S: Final = 0.8
FADE_OUT_S: Final = 2.5
PEAK_MARGIN_DB: Final = 0.3
"""Left between the limiter's ceiling and the wanted peak: going down from 192 kHz may raise peaks a little."""

_VOICE: Final = "highpass=f=75,acompressor=threshold=-22dB:ratio=2.5:attack=6:release=140:makeup=1"
_DUCK: Final = "sidechaincompress=threshold=0.015:ratio=5:attack=30:release=500:knee=4"
"""About 8 dB down within 30 ms of a voice, back within half a second: heard as care, not as pumping."""


def premix_arguments(voices: Path, music: Path | None, music_gain_db: float, samples: int, target: Path) -> list[str]:
    """Voices and ducked music as 32-bit float stereo, measured on the way.

    Args:
        voices: raw float32 mono samples at 48 kHz, ``samples`` long.
        music: any audio; looped by silence to the full length.
        music_gain_db: gain of the music before ducking.
        samples: length of the mix.
        target: WAV to write.
    """
    inputs = ["-f", "f32le", "-ar", str(RATE_HZ), "-ac", "1", "-i", str(voices)]
    if music is None:
        graph = f"[0:a]{_VOICE},pan=stereo|c0=c0|c1=c0,{EBUR128}[mix]"
    else:
        inputs += [*SAFE_INPUT, "-i", f"file:{music}"]
        length_s = samples / RATE_HZ
        fade_s = min(FADE_OUT_S, length_s / 3)
        graph = (
            f"[0:a]{_VOICE},asplit=2[voice][key];[voice]pan=stereo|c0=c0|c1=c0[wide];"
            f"[1:a]aresample={RATE_HZ},aformat=sample_fmts=flt:channel_layouts=stereo,"
            f"apad=whole_len={samples},atrim=end_sample={samples},volume={music_gain_db:.2f}dB,"
            f"afade=t=in:d={min(FADE_IN_S, length_s / 3):.3f},"
            f"afade=t=out:st={length_s - fade_s:.3f}:d={fade_s:.3f}[music];"
            f"[music][key]{_DUCK}[ducked];"
            f"[wide][ducked]amix=inputs=2:normalize=0:duration=first,{EBUR128}[mix]"
        )
    return [*inputs, "-filter_complex", graph, "-map", "[mix]", *_float_wav(target)]


def music_arguments(music: Path, samples: int, target: Path) -> list[str]:
    """Music alone as 32-bit float stereo, ``samples`` long, measured on the way; starts and ends as it was played."""
    chain = (
        f"aresample={RATE_HZ},aformat=sample_fmts=flt:channel_layouts=stereo,"
        f"apad=whole_len={samples},atrim=end_sample={samples},{EBUR128}"
    )
    return [*SAFE_INPUT, "-i", f"file:{music}", "-map", "0:a:0", "-af", chain, *_float_wav(target)]


def _float_wav(target: Path) -> list[str]:
    """Output options of what will be mastered."""
    return [
        "-c:a", "pcm_f32le", "-ar", str(RATE_HZ), "-fflags", "+bitexact", "-flags:a", "+bitexact",
        "-f", "wav", str(target),
    ]  # fmt: skip


def master_arguments(premix: Path, gain_db: float, true_peak_dbtp: float, samples: int, target: Path) -> list[str]:
    """Gain, then a limiter at four times the rate, where peaks between samples show; 16-bit stereo, measured."""
    ceiling = 10 ** ((true_peak_dbtp - PEAK_MARGIN_DB) / 20)
    chain = (
        f"volume={gain_db:.3f}dB,aresample={RATE_HZ * 4},"
        f"alimiter=level=false:limit={ceiling:.5f}:attack=5:release=80:latency=true,"
        f"aresample={RATE_HZ}:osf=s16:dither_method=triangular,"
        f"apad=whole_len={samples},atrim=end_sample={samples},{EBUR128}"
    )
    return [
        "-i", str(premix), "-af", chain, "-c:a", "pcm_s16le", "-ar", str(RATE_HZ), "-ac", "2",
        "-fflags", "+bitexact", "-flags:a", "+bitexact", "-f", "wav", str(target),
    ]  # fmt: skip


def next_gain_db(gain_db: float, measured: Loudness, wanted_lufs: float) -> float:
    """The gain for another pass: what the limiter took away is given back, at most 12 dB at a time."""
    if measured.integrated_lufs <= SILENCE_LUFS:
        return gain_db
    return gain_db + max(-12.0, min(12.0, wanted_lufs - measured.integrated_lufs))
