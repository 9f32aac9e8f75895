"""Programme time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.timeline import (
    LEAD_IN_S,
    LEAD_OUT_S,
    PIECE_S,
    SCENE_PAD_S,
    Pauses,
    Segment,
    lay_out_recording,
    lay_out_scenes,
    lay_out_turns,
)
from serving.protocol.tasks import Span

SPEECH = st.lists(st.floats(min_value=0.2, max_value=60), min_size=1, max_size=30)
FPS = st.sampled_from([24, 25, 30, 50])


def _assert_covers(segments: list[Segment]) -> None:
    assert segments[0].start_frame == 0
    assert all(a.end_frame == b.start_frame for a, b in pairwise(segments))
    assert all(segment.start_frame < segment.end_frame for segment in segments)


@given(SPEECH, FPS)
def test_turns_cover_the_programme_and_hold_their_speech(speech: list[float], fps: int) -> None:
    segments = lay_out_turns(speech, fps)
    _assert_covers(segments)
    for segment, length in zip(segments, speech, strict=True):
        assert segment.speech_end_s - segment.speech_start_s == pytest.approx(length)
        assert segment.speech_start_s >= segment.start_s
        assert segment.speech_end_s <= segment.start_s + segment.duration_s + 1 / fps


@given(SPEECH, FPS, st.floats(min_value=1, max_value=600))
def test_scenes_cover_the_programme_and_hold_their_narration(speech: list[float], fps: int, duration_s: float) -> None:
    segments = lay_out_scenes(speech, duration_s, fps)
    _assert_covers(segments)
    shortest = sum(speech) + 2 * SCENE_PAD_S * len(speech)
    assert segments[-1].end_frame / fps == pytest.approx(max(duration_s, shortest), abs=1 / fps)
    for segment in segments:
        assert segment.start_s <= segment.speech_start_s + 1 / fps
        assert segment.speech_end_s <= segment.start_s + segment.duration_s + 1 / fps


def test_the_music_leads_in_and_out() -> None:
    (segment,) = lay_out_turns([2.0], fps=25)
    assert segment.speech_start_s == LEAD_IN_S
    assert segment.duration_s == pytest.approx(LEAD_IN_S + 2.0 + LEAD_OUT_S, abs=0.04)


def test_pauses_are_what_was_asked_for() -> None:
    first, second = lay_out_turns([1.0, 2.0], 50, Pauses(0.2, 1.0, 0.4))
    assert (first.speech_start_s, second.speech_start_s) == (0.2, 2.2)
    assert second.start_s + second.duration_s == pytest.approx(4.6)


def recorded(*lengths_s: float, pause_s: float = 1.0) -> tuple[list[Span], float]:
    """Speech of the given lengths with pauses before, between and after; and how long all of it lasts."""
    spans, at = [], pause_s
    for length in lengths_s:
        spans.append(Span(start_s=at, end_s=at + length))
        at += length + pause_s
    return spans, at


@pytest.mark.parametrize(
    ("lengths_s", "pieces"),
    [
        pytest.param([3], 1, id="a word"),
        pytest.param([50], 1, id="nobody pauses"),
        pytest.param([8, 8], 1, id="two that fit"),
        pytest.param([8, 8, 8, 8], 2, id="as many as fit"),
        pytest.param([30, 30, 2], 3, id="each too long"),
    ],
)
def test_a_recording_is_cut_in_its_pauses(lengths_s: list[float], pieces: int) -> None:
    spans, duration_s = recorded(*lengths_s)
    segments = lay_out_recording(spans, duration_s, 25)
    assert len(segments) == pieces
    for cut in (segment.start_s for segment in segments[1:]):
        assert all(not span.start_s < cut < span.end_s for span in spans)


@given(st.lists(st.floats(0.3, 45), min_size=1, max_size=30), st.floats(0.1, 3), FPS)
def test_pieces_cover_the_recording_and_each_holds_speech(lengths: list[float], pause_s: float, fps: int) -> None:
    spans, duration_s = recorded(*lengths, pause_s=pause_s)
    segments = lay_out_recording(spans, duration_s, fps)
    _assert_covers(segments)
    assert 0 <= segments[-1].end_frame / fps - duration_s < 1 / fps + 1e-6
    for segment in segments:
        within = [
            span
            for span in spans
            if segment.start_s <= (span.start_s + span.end_s) / 2 < segment.start_s + segment.duration_s
        ]
        assert within
        assert len(within) == 1 or segment.duration_s <= PIECE_S + 2 * pause_s + 1 / fps
