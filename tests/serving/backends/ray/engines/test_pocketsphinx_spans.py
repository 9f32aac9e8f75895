"""Stretches of time: lost words get theirs, utterances are cut where it is quiet."""

import numpy as np
import pytest

from serving.backends.ray.engines.pocketsphinx_spans import fill_gaps, join_parts, speech_bounds, utterances

RATE = 16_000


def noise(*pieces: tuple[float, float]) -> np.ndarray:
    """Noise made of (seconds, level) pieces."""
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(0, level, round(seconds * RATE)) for seconds, level in pieces]).astype("f4")


def test_the_parts_of_a_word_become_one_span() -> None:
    assert join_parts([2, 0, 1, 1], [(0, 1), (1, 2), None, (3, 4)]) == [(0, 2), None, None, (3, 4)]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        pytest.param([(1, 2), None, (4, 5)], [(1, 2), (2, 4), (4, 5)], id="between neighbours"),
        pytest.param([None, (2, 3)], [(0.5, 2), (2, 3)], id="at the start"),
        pytest.param([(1, 2), None], [(1, 2), (2, 8)], id="at the end"),
        pytest.param([None, None], [(0.5, 4.25), (4.25, 8)], id="none found at all"),
        pytest.param([(1, 3), (2, 4)], [(1, 3), (3, 4)], id="overlaps are cut"),
    ],
)
def test_every_word_gets_a_time(spans: list[tuple[float, float] | None], expected: list[tuple[float, float]]) -> None:
    assert fill_gaps(spans, [1] * len(spans), (0.5, 8.0)) == expected


def test_lost_words_share_by_their_length() -> None:
    assert fill_gaps([None, None], [3, 1], (0.0, 4.0)) == [(0.0, 3.0), (3.0, 4.0)]


def test_speech_bounds_leave_out_silence() -> None:
    start, end = speech_bounds(noise((1, 1e-4), (2, 0.1), (1, 1e-4)), RATE)
    assert [start, end] == pytest.approx([1, 3], abs=0.03)
    assert speech_bounds(np.zeros(RATE, dtype=np.float32), RATE) == (0.0, 1.0)


def test_utterances_are_found_by_level() -> None:
    found = utterances(noise((1, 1e-5), (2, 0.1), (1, 1e-5), (1, 0.1)), RATE, None)
    assert [(round(a / RATE, 1), round(b / RATE, 1)) for a, b in found] == [(0.9, 3.1), (3.9, 5.0)]


def test_long_spans_are_cut_at_their_quietest_place() -> None:
    found = utterances(noise((10, 0.1), (0.1, 1e-4), (12, 0.1)), RATE, [(0.0, 30.0)])
    assert len(found) == 2
    assert found[0][1] / RATE == pytest.approx(10.05, abs=0.1)
    assert found[1][0] == found[0][1]
    assert found[1][1] == pytest.approx(22.1 * RATE, abs=400)


def test_silence_and_slivers_hold_no_utterance() -> None:
    assert utterances(np.zeros(RATE, dtype=np.float32), RATE, None) == []
    assert utterances(noise((1, 0.1)), RATE, [(0.2, 0.3)]) == []
