"""Composition: notes inside the piece, on the scale, ending on the tonic."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.ray.engines.music_score import compose

MOODS = st.sampled_from(["calm", "bright", "dramatic"])


@given(st.floats(0.02, 300), MOODS, st.integers(0, 2**32 - 1))
def test_every_note_starts_inside_the_piece_and_in_order(duration_s: float, mood: str, seed: int) -> None:
    score = compose(duration_s, mood, seed)
    starts = [note.start_s for note in score.notes]
    assert starts == sorted(starts)
    assert all(0 <= start < duration_s + 0.2 for start in starts)
    assert all(0 < note.velocity <= 1 and 20 <= note.pitch <= 100 for note in score.notes)
    assert 0 < score.tail_s <= duration_s


@pytest.mark.parametrize(("mood", "scale"), [("calm", {0, 2, 4, 7, 9}), ("dramatic", {0, 3, 5, 7, 10})])
def test_melodies_stay_on_their_scale_and_end_on_the_tonic(mood: str, scale: set[int]) -> None:
    score = compose(40.0, mood, 11)
    strings = [note for note in score.notes if note.instrument == "string"]
    last = [note for note in strings if note.start_s >= score.duration_s - score.tail_s - 0.02]
    tonic = min(note.pitch for note in last)
    assert {(note.pitch - tonic) % 12 for note in strings} <= scale
    assert max(note.pitch for note in last) % 12 == tonic % 12


def test_the_tempo_bends_so_that_whole_bars_fill_the_piece() -> None:
    for duration_s in (20.0, 23.0, 31.7):
        basses = [note.start_s for note in compose(duration_s, "bright", 0).notes if note.instrument == "bass"]
        steps = [b - a for a, b in pairwise(basses)]
        assert max(steps) - min(steps) < 1e-6
        assert 2.0 < steps[0] < 2.8
