"""Sounds are cut at quiet places into windows of 30 s that hold all there is to hear."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.backends.ray.engines.whisper.windows import RATE_HZ, Window, windows


def loud(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE_HZ)).astype(np.float32)


def bounds(found: list[Window]) -> list[tuple[float, float]]:
    return [(round(window.start_s, 3), round(window.start_s + window.seconds, 3)) for window in found]


def test_a_short_sound_is_one_window() -> None:
    assert bounds(windows(loud(29))) == [(0, 29)]


def test_a_long_one_is_cut_where_it_is_quietest() -> None:
    sound = loud(65)
    sound[25 * RATE_HZ : round(25.4 * RATE_HZ)] *= 0.01
    sound[50 * RATE_HZ : round(50.4 * RATE_HZ)] *= 0.01
    found = bounds(windows(sound))
    assert len(found) == 3
    assert 25 <= found[0][1] == found[1][0] <= 25.4
    assert 50 <= found[1][1] == found[2][0] <= 50.4


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(1, 3), (4, 6)], [(1, 6)]),
        ([(4, 6), (1, 3)], [(1, 6)]),
        ([(1, 4), (3, 6)], [(1, 6)]),
        ([(1, 3), (8, 9)], [(1, 3), (8, 9)]),
        ([(1, 20), (21, 39)], [(1, 20), (21, 39)]),
        ([(5, 5), (2, 2.05)], []),
        ([(38, 90)], [(38, 40)]),
        ([(50, 60)], []),
        ([], []),
    ],
    ids=["near", "unordered", "overlapping", "far", "too long together", "empty", "past the end", "outside", "none"],
)
def test_spans_become_windows(spans: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert bounds(windows(loud(40), spans)) == expected


def test_what_lies_between_spans_is_silent() -> None:
    window = windows(loud(10), [(1, 3), (4, 6)])[0].samples
    assert not window[2 * RATE_HZ : 3 * RATE_HZ].any()
    assert window[: 2 * RATE_HZ].any()


def test_silence_is_nothing_to_hear() -> None:
    assert windows(np.zeros(RATE_HZ, np.float32)) == []
    assert windows(np.zeros(0, np.float32)) == []
    assert windows(loud(0.05)) == []


@settings(max_examples=30, deadline=None)
@given(
    seconds=st.floats(0.2, 100),
    spans=st.none() | st.lists(st.tuples(st.floats(0, 120), st.floats(0, 120)), max_size=6),
)
def test_windows_are_in_order_apart_and_short_enough(seconds: float, spans: list[tuple[float, float]] | None) -> None:
    found = windows(loud(seconds), spans)
    ends = [window.start_s + window.seconds for window in found]
    assert all(0.1 - 1e-4 <= window.seconds <= 30 for window in found)
    assert all(end <= window.start_s + 1e-9 for end, window in zip(ends, found[1:], strict=False))
    if spans is None:
        assert sum(window.seconds for window in found) == pytest.approx(seconds, abs=0.11)
