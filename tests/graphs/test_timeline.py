"""Programme time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.timeline import LEAD_IN_S, LEAD_OUT_S, SCENE_PAD_S, Segment, lay_out_scenes, lay_out_turns

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
