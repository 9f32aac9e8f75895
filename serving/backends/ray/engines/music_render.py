"""Plays a score to stereo sound, block by block; used by the synth engine.

The one invariant: memory does not grow with the length of the piece, but for the two minutes measured for loudness.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.audio_signal import convolve, db, loudness_lufs
from serving.backends.ray.engines.music_instruments import RATE_HZ, note_wave
from serving.backends.ray.engines.music_score import Instrument, Note, Score

LOUDNESS_LUFS: Final = -23.0
"""EBU R 128; the mix sets the bed's own place under the voices."""

_BLOCK_S: Final = 8
_LONGEST_NOTE_S: Final = 13
_MEASURED_S: Final = 120
_FADE_IN_S: Final = 0.6
_KNEE: Final = 0.55

_LEVELS: Final[Mapping[Instrument, float]] = {
    "string": 0.42, "bass": 0.4, "drone": 0.13, "pad": 0.1, "low_drum": 0.5, "high_drum": 0.22, "shaker": 0.09,
    "boom": 0.55,
}  # fmt: skip
_WET: Final[Mapping[Instrument, float]] = {
    "string": 0.45, "bass": 0.05, "drone": 0.4, "pad": 0.5, "low_drum": 0.12, "high_drum": 0.4, "shaker": 0.25,
    "boom": 0.3,
}  # fmt: skip

Stereo = NDArray[np.float32]


def play(score: Score, checkpoint: Callable[[], None] = lambda: None) -> Iterator[Stereo]:
    """The finished piece in blocks, float32 (frames, 2) at 48 kHz, loudness about -23 LUFS, never above full scale.

    Args:
        score: what to play.
        checkpoint: called every 8 s of music; what it raises ends the work.
    """
    mixed = _fade(_mix(score, checkpoint), score)
    head: list[Stereo] = []
    for block in mixed:
        head.append(block)
        if len(head) * _BLOCK_S >= _MEASURED_S:
            break
    measured = loudness_lufs(np.concatenate(head), RATE_HZ)
    peak = max(float(np.abs(block).max(initial=0.0)) for block in head)
    gain = db(LOUDNESS_LUFS - measured) if measured > -69 else 0.2 / max(peak, 1e-6)  # noqa: PLR2004 (silence)
    for block in head:
        yield _master(block, gain)
    for block in mixed:
        yield _master(block, gain)


def _master(block: Stereo, gain: float) -> Stereo:
    """Gain, and a soft knee for the rare peak: linear up to 0.55, at most 0.95; no memory, so no seams."""
    block = block * np.float32(gain)
    over = np.maximum(np.abs(block) - _KNEE, 0.0)
    return np.asarray(np.clip(block, -_KNEE, _KNEE) + np.sign(block) * 0.4 * np.tanh(over / 0.4), dtype=np.float32)


def _fade(blocks: Iterator[Stereo], score: Score) -> Iterator[Stereo]:
    """Silence at both ends: a short rise, and a fall over the last part of the final chord."""
    start, end_s = 0, score.duration_s
    fall_s = max(0.6 * score.tail_s, 1e-3)
    rise_s = min(_FADE_IN_S, 0.2 * end_s)
    for block in blocks:
        time = (start + np.arange(len(block))) / RATE_HZ
        rise = np.sin(np.clip(time / rise_s, 0, 1) * np.pi / 2)
        fall = np.sin(np.clip((end_s - 1 / RATE_HZ - time) / fall_s, 0, 1) * np.pi / 2) ** 2
        yield block * (rise * fall).astype(np.float32)[:, None]
        start += len(block)


def _mix(score: Score, checkpoint: Callable[[], None]) -> Iterator[Stereo]:
    """Notes placed on the time line, with reverberation, without master gain."""
    total, size = round(score.duration_s * RATE_HZ), _BLOCK_S * RATE_HZ
    ring = (_LONGEST_NOTE_S + 1) * RATE_HZ
    dry, wet = np.zeros((size + ring, 2), dtype=np.float32), np.zeros((size + ring, 2), dtype=np.float32)
    tail = np.zeros((size + ring, 2), dtype=np.float32)
    notes = iter(score.notes)
    note = next(notes, None)
    for start in range(0, total, size):
        checkpoint()
        while note is not None and note.start_s * RATE_HZ < start + size:
            _place(dry, wet, note, round(note.start_s * RATE_HZ) - start)
            note = next(notes, None)
        for side in (0, 1):
            echo = convolve(wet[:size, side], _room(side))
            tail[: len(echo), side] += echo
        yield (dry[:size] + tail[:size])[: total - start]
        for buffer in (dry, wet, tail):
            buffer[:ring] = buffer[size:].copy()
            buffer[ring:] = 0


def _place(dry: Stereo, wet: Stereo, note: Note, at: int) -> None:
    _, length_s, instrument, pitch, velocity, pan = note
    wave = note_wave(instrument, pitch, round(length_s * 20) * 50)
    angle = (0.6 * pan + 1) * np.pi / 4
    sides = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    sound = wave[:, None] * (sides * np.float32(_LEVELS[instrument] * velocity))
    dry[at : at + len(sound)] += sound
    wet[at : at + len(sound)] += sound * np.float32(_WET[instrument])


@functools.cache
def _room(side: int) -> NDArray[np.float64]:
    """A hall for one ear: 1.6 s of decaying noise that gets duller, different left and right."""
    count = int(1.6 * RATE_HZ)
    time = np.arange(count) / RATE_HZ
    noise = np.random.default_rng([11, side]).standard_normal(count)
    dull = np.convolve(noise, np.hanning(40) / 8, "same")
    mixed = noise * np.exp(-time / 0.09) * 0.35 + dull * np.exp(-time / 0.32)
    mixed *= np.clip((time - 0.012) / 0.01, 0, 1) * np.clip((1.6 - time) / 0.2, 0, 1)
    mixed -= mixed.mean()
    return np.asarray(mixed / np.sqrt(np.square(mixed).sum()), dtype=np.float64)
