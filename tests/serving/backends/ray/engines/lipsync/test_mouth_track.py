import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.backends.ray.engines.lipsync.mouth_track import (
    edge_window,
    frame_loudness,
    mouth_track,
    speaking_window,
    stresses,
)
from serving.backends.ray.engines.lipsync.visemes import PARTS, TABLE
from serving.protocol.tasks import Phoneme

JAW, WIDTH, PRESS = (PARTS.index(name) for name in ("jaw", "width", "press"))
FPS = 25


def said(*timed: tuple[str, float, float]) -> list[Phoneme]:
    return [Phoneme(symbol=symbol, start_s=start, end_s=end) for symbol, start, end in timed]


def evenly_loud(frames: int) -> np.ndarray:
    return np.full(frames, 0.75, np.float32)


def test_no_phonemes_give_rest_throughout() -> None:
    assert not mouth_track([], evenly_loud(50), FPS).any()


@given(start=st.floats(0.2, 1.5), length=st.floats(0.01, 0.2), fps=st.sampled_from([12, 24, 25, 30, 60]))
@settings(max_examples=60, deadline=None)
def test_lips_shut_in_at_least_one_frame_of_every_m_however_short(start: float, length: float, fps: int) -> None:
    phonemes = said(
        ("a", start - 0.1, start), ("m", start, start + length), ("a", start + length, start + length + 0.2)
    )
    track = mouth_track(phonemes, evenly_loud(2 * fps), fps)
    shut = np.flatnonzero(track[:, PRESS] > 0.99)
    assert len(shut)
    assert (track[shut, JAW] < 0.01).all()


def test_the_jaw_opens_on_a_and_the_mouth_rounds_on_u() -> None:
    track = mouth_track(said(("a", 0.4, 0.6), ("u", 0.9, 1.1), ("i", 1.4, 1.6)), evenly_loud(50), FPS)
    assert track[12, JAW] > 0.7
    assert track[25, WIDTH] < -0.7
    assert track[37, WIDTH] > 0.7


def test_rounding_is_prepared_before_the_sound() -> None:
    track = mouth_track(said(("t", 0.4, 0.5), ("u", 0.5, 0.8)), evenly_loud(30), FPS)
    assert track[11, WIDTH] < 0.0 < TABLE["t"].width


@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_a_track_begins_and_ends_near_rest_and_is_finite(frames: int) -> None:
    track = mouth_track(said(("a", 0.0, frames / FPS)), evenly_loud(frames), FPS)
    assert np.isfinite(track).all()
    assert track[0, JAW] < 0.1
    assert track[-1, JAW] < 0.1


def test_louder_speech_opens_the_jaw_wider() -> None:
    phonemes = said(("a", 0.3, 0.7))
    quiet, loud = (mouth_track(phonemes, np.full(25, level, np.float32), FPS)[12, JAW] for level in (0.1, 1.0))
    assert loud > 1.8 * quiet


def test_loudness_follows_the_features_from_their_offset() -> None:
    features = np.full((100, 80), -0.8, np.float32)
    features[50:80] = 0.6
    loudness = frame_loudness(features, 50, FPS, offset_s=0.4)
    assert loudness[int(0.4 * FPS) + 16] > 0.9
    assert loudness[:10].max() < 0.05
    assert loudness[-5:].max() < 0.05


def test_without_features_loudness_is_even() -> None:
    assert set(frame_loudness(None, 5, FPS).tolist()) == {0.75}


def test_silent_or_flat_features_do_not_divide_by_zero() -> None:
    assert np.isfinite(frame_loudness(np.zeros((3, 80), np.float32), 9, FPS)).all()


def test_liveliness_of_speech_is_zero_at_both_ends() -> None:
    window = speaking_window(said(("a", 0.0, 3.0)), 75, FPS)
    assert window[0] < 0.01
    assert window[-1] < 0.01
    assert window[37] == 1.0


def test_marked_stress_wins_and_beats_keep_their_distance() -> None:
    marked = stresses(said(("a", 0.1, 0.2), ("ˈe", 0.5, 0.6), ("i", 0.7, 0.8)), evenly_loud(30), FPS)
    assert marked == [0.5]
    crowded = stresses(said(*(("a", k / 10, k / 10 + 0.1) for k in range(20))), evenly_loud(60), FPS)
    assert min(np.diff(crowded)) >= 0.45


def test_an_edge_window_of_one_frame_stays_low() -> None:
    assert edge_window(1, FPS, 0.12)[0] < 0.1
