"""Composes a piece as a list of notes from length, mood and seed; pure, used by the synth engine.

The one invariant: the last bar's tonic starts ``tail_s`` before the end of the piece, so that it rings out inside.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

Instrument = Literal["string", "bass", "drone", "pad", "low_drum", "high_drum", "shaker", "boom"]
BEATS: Final = 4
_PHRASE_BARS: Final = 4
_LONGEST_TAIL_S: Final = 4.5


class Note(NamedTuple):
    """One note: ``pitch`` is a MIDI number (69 is 440 Hz), ``velocity`` 0 to 1, ``pan`` -1 (left) to 1 (right)."""

    start_s: float
    length_s: float
    instrument: Instrument
    pitch: int
    velocity: float
    pan: float


@dataclass(frozen=True, slots=True)
class Score:
    """Notes by start time; the final chord stands ``tail_s`` before the end."""

    notes: tuple[Note, ...]
    duration_s: float
    tail_s: float


@dataclass(frozen=True, slots=True)
class _Mood:
    """How a mood is composed; scale and chords in semitones over the tonic, rhythms as lengths in beats."""

    beats_per_minute: float
    scale: Sequence[int]
    chords: Sequence[Sequence[int]]
    rhythms: Sequence[Sequence[float]]
    tonic: tuple[int, int]
    rest: float
    drone: float
    pad: float
    drums: Mapping[Instrument, Sequence[tuple[float, float]]]


_MOODS: Final[Mapping[str, _Mood]] = {
    "calm": _Mood(
        beats_per_minute=68,
        scale=(0, 2, 4, 7, 9),
        chords=((0, 7, 16), (-3, 4, 12), (0, 7, 14), (-5, 2, 9)),
        rhythms=((2, 1, 1), (1.5, 0.5, 2), (3, 1), (1, 1, 2), (2, 2)),
        tonic=(48, 53),
        rest=0.16,
        drone=0.75,
        pad=0.8,
        drums={"low_drum": ((0, 0.35),), "high_drum": ((2.5, 0.16),)},
    ),
    "bright": _Mood(
        beats_per_minute=102,
        scale=(0, 2, 4, 7, 9),
        chords=((0, 7, 16), (-5, 2, 11), (-3, 4, 12), (-7, 5, 9)),
        rhythms=(
            (0.5, 0.5, 1, 1, 1),
            (1, 0.5, 0.5, 1, 1),
            (1.5, 0.5, 1, 1),
            (1, 1, 0.5, 0.5, 1),
            (0.5, 0.5, 0.5, 0.5, 2),
        ),
        tonic=(50, 55),
        rest=0.1,
        drone=0.0,
        pad=0.7,
        drums={
            "low_drum": ((0, 0.5), (1.5, 0.25), (2, 0.4)),
            "high_drum": ((1, 0.28), (3, 0.3), (3.5, 0.16)),
            "shaker": tuple((index / 2, 0.3 if index % 2 else 0.18) for index in range(8)),
        },
    ),
    "dramatic": _Mood(
        beats_per_minute=80,
        scale=(0, 3, 5, 7, 10),
        chords=((0, 7, 15), (-4, 3, 12), (-9, 3, 10), (-2, 5, 14)),
        rhythms=((3, 1), (2, 1.5, 0.5), (1, 1, 2), (1.5, 1.5, 1), (4,)),
        tonic=(45, 50),
        rest=0.2,
        drone=0.35,
        pad=1.0,
        drums={"boom": ((0, 0.8), (2.75, 0.3)), "low_drum": ((1.5, 0.3), (3, 0.35), (3.5, 0.25))},
    ),
}


def compose(duration_s: float, mood: str, seed: int) -> Score:
    """A piece of exactly ``duration_s``: whole bars at about the mood's tempo, then a final chord.

    Args:
        duration_s: seconds, above 0.
        mood: calm, bright or dramatic.
        seed: another seed is another tune and key.
    """
    style, random = _MOODS[mood], np.random.default_rng([seed, len(mood)])
    tonic = int(random.integers(style.tonic[0], style.tonic[1] + 1))
    tail_s = min(_LONGEST_TAIL_S, 0.35 * duration_s)
    body_s = duration_s - tail_s
    bars = round(body_s * style.beats_per_minute / 60 / BEATS)
    beat_s = body_s / (bars * BEATS) if bars else 60 / style.beats_per_minute
    final_s = body_s if bars else 0.0
    notes = [*_ending(style, tonic, final_s, duration_s - final_s)]
    motifs = _motifs(style, random)
    for bar in range(bars):
        start_s = bar * BEATS * beat_s
        notes += _accompaniment(style, tonic, bar, start_s, beat_s, random)
        notes += _melody(style, tonic, bar, bars, start_s, beat_s, motifs, random)
    return Score(tuple(sorted(notes)), duration_s, duration_s - final_s)


def _ending(style: _Mood, tonic: int, start_s: float, length_s: float) -> Iterator[Note]:
    chord = style.chords[0]
    for index, offset in enumerate(chord):
        yield Note(start_s, length_s, "pad", tonic + offset, 0.8 * style.pad, 0.4 * (index - 1))
    for index, offset in enumerate((-12, 0, 7, chord[2], 24)):
        yield Note(start_s + 0.045 * index, length_s, "string", tonic + offset, 0.6, 0.25 * (index - 2))
    yield Note(start_s, length_s, "bass", tonic - 12, 0.7, 0.0)
    if "boom" in style.drums:
        yield Note(start_s, 2.0, "boom", 36, 0.8, 0.0)


def _accompaniment(
    style: _Mood, tonic: int, bar: int, start_s: float, beat_s: float, random: np.random.Generator
) -> Iterator[Note]:
    chord = style.chords[bar // 2 % len(style.chords)]
    if bar % 2 == 0:
        for index, offset in enumerate(chord):
            yield Note(start_s, 8.6 * beat_s, "pad", tonic + offset, style.pad * 0.7, 0.5 * (index - 1))
    yield Note(start_s, 3.5 * beat_s, "bass", tonic + chord[0] - 12, 0.6, 0.0)
    if style.drone:
        for index, offset in enumerate((-5, 0, 0, -12)):
            at = start_s + index * beat_s + float(random.normal(0, 0.008))
            yield Note(max(0.0, at), 4.0, "drone", tonic + offset, style.drone * 0.6, (-0.6, -0.2, 0.3, 0.6)[index])
    if bar:
        for instrument, hits in style.drums.items():
            for beat, velocity in hits:
                at = start_s + beat * beat_s + float(random.normal(0, 0.004))
                yield Note(at, 1.0, instrument, 36, velocity * float(random.uniform(0.8, 1.0)), 0.25)


def _motifs(style: _Mood, random: np.random.Generator) -> list[list[tuple[float, int]]]:
    """Two bars of melody to build phrases from: (length in beats, step on the scale) with small steps mostly."""
    motifs = []
    for _ in range(2):
        step, motif = int(random.choice((0, 2, 3))), []
        for length in style.rhythms[int(random.integers(len(style.rhythms)))]:
            motif.append((float(length), step))
            step = int(np.clip(step + random.choice((-2, -1, -1, 1, 1, 2)), -2, 7))
        motifs.append(motif)
    return motifs


def _melody(  # noqa: PLR0917 (one bar in its context)
    style: _Mood,
    tonic: int,
    bar: int,
    bars: int,
    start_s: float,
    beat_s: float,
    motifs: Sequence[Sequence[tuple[float, int]]],
    random: np.random.Generator,
) -> Iterator[Note]:
    """Phrases of four bars: motif, answer, motif a step away, and a bar that comes to rest on a note of the chord."""
    if bar == 0 and bars > 2:  # noqa: PLR2004 (a short piece has no time for an introduction)
        return
    place = bar % _PHRASE_BARS
    shift = (0, 0, int(random.choice((-1, 1, 2))), 0)[place]
    cadence = place == _PHRASE_BARS - 1 or bar == bars - 1
    motif = ((2.0, int(random.choice((1, 2, 3)))), (2.0, 0)) if cadence else motifs[place % 2]
    beat = 0.0
    for length, step in motif:
        strong = math.isclose(beat % 2, 0)
        if strong or random.random() > style.rest:
            octave, degree = divmod(step + shift, len(style.scale))
            pitch = tonic + 12 + 12 * octave + style.scale[degree]
            at = max(0.0, start_s + beat * beat_s + float(random.normal(0, 0.007)))
            velocity = (0.85 if strong else 0.65) * float(random.uniform(0.85, 1.0))
            yield Note(at, max(1.2, length * beat_s * 1.6), "string", pitch, velocity, 0.15)
        beat += length
