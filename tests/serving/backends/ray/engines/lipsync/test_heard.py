"""Mouths moved by sound alone."""

from itertools import pairwise

import numpy as np
import pytest

from serving.backends.ray.engines.lipsync.arrays import Floats
from serving.backends.ray.engines.lipsync.heard import heard_phonemes
from serving.backends.ray.engines.lipsync.mouth_track import frame_loudness, mouth_track
from serving.backends.ray.engines.lipsync.visemes import PARTS, TABLE


def sound(*stretches: tuple[str, int]) -> Floats:
    """Log-mel features of stretches of a kind, each so many hundredths of a second long."""
    bands = {"silence": [], "open": [(3, 45, 0.7), (17, 32, 1.0)], "close": [(3, 40, 0.1), (3, 17, 1.0), (40, 56, 0.5)]}
    bands |= {"murmur": [(3, 17, 0.6)], "hiss": [(3, 17, -0.2), (45, 80, 0.9)]}
    features = []
    for kind, length in stretches:
        frame = np.full(80, -0.6, np.float32)
        for first, last, level in bands[kind]:
            frame[first:last] = level
        features += [frame] * length
    whole = np.stack(features) if features else np.zeros((0, 80), np.float32)
    return whole + np.random.default_rng(5).normal(0, 0.01, whole.shape).astype(np.float32)


def symbols(features: Floats) -> list[str]:
    return [phoneme.symbol for phoneme in heard_phonemes(features)]


SPOKEN = sound(
    ("silence", 30),
    ("open", 12),
    ("murmur", 6),
    ("close", 14),
    ("hiss", 8),
    ("open", 10),
    ("close", 10),
    ("silence", 30),
)


def test_phonemes_stand_where_there_is_sound_and_can_be_shown() -> None:
    phonemes = heard_phonemes(SPOKEN, offset_s=2.0)
    assert phonemes[0].start_s == pytest.approx(2.3, abs=0.05)
    assert phonemes[-1].end_s == pytest.approx(2.9, abs=0.05)
    assert all(phoneme.symbol in TABLE for phoneme in phonemes)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(phonemes))


def test_open_vowels_open_the_mouth_hiss_shows_teeth_and_a_murmur_shuts_the_lips() -> None:
    track = mouth_track(heard_phonemes(SPOKEN), frame_loudness(SPOKEN, 30, 25), 25)
    jaw, press, teeth = (track[:, PARTS.index(part)] for part in ("jaw", "press", "teeth"))
    assert jaw[8:10].max() > 1.4 * jaw[13:15].max()
    assert press[11] > 0.8
    assert teeth[15:18].max() > 0.4
    assert jaw[:5].max() < 0.05


@pytest.mark.parametrize("features", [sound(), sound(("silence", 50))], ids=["nothing", "silence"])
def test_where_nobody_speaks_the_mouth_rests(features: Floats) -> None:
    assert heard_phonemes(features) == []
