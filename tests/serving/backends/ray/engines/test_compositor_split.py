"""Light on the speaker's panel: smooth, whole frames, and exactly as long as the programme."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.ray.engines.compositor_plan import escape_option, language_code
from serving.backends.ray.engines.compositor_sequence import fades, groups, sequence_length
from serving.backends.ray.engines.compositor_split import LIGHT_STEPS, Canvas, light_levels, merged
from serving.protocol.tasks import Span

SPANS = st.lists(
    st.tuples(st.floats(0, 9), st.floats(0, 4)).map(lambda pair: Span(start_s=pair[0], end_s=sum(pair))), max_size=20
)


@given(SPANS, st.integers(1, 60), st.floats(0.1, 8))
def test_levels_fill_the_programme_and_move_by_one(spans: list[Span], fps: int, duration_s: float) -> None:
    canvas = Canvas(1280, 720, fps, duration_s)
    levels = light_levels(spans, canvas)
    assert sum(frames for _, frames in levels) == canvas.frames
    assert all(0 <= level < LIGHT_STEPS and frames > 0 for level, frames in levels)
    assert all(abs(after - before) == 1 for (before, _), (after, _) in itertools.pairwise(levels))


def test_a_panel_is_fully_lit_when_its_person_begins() -> None:
    levels = light_levels([Span(start_s=1.0, end_s=2.0)], Canvas(1280, 720, 25, 3.0))
    assert levels == [(0, 21), (1, 1), (2, 1), (3, 1), (4, 26), (3, 1), (2, 1), (1, 1), (0, 22)]


def test_short_pauses_do_not_dim() -> None:
    spans = [Span(start_s=0, end_s=1), Span(start_s=1.3, end_s=2), Span(start_s=4, end_s=5)]
    assert merged(spans) == [(0, 2), (4, 5)]


@given(st.lists(st.floats(0.04, 10), min_size=1, max_size=30), st.floats(0, 3))
def test_fades_never_overlap(durations: list[float], wanted_s: float) -> None:
    lengths = fades(durations, wanted_s, 25)
    edges = [0.0, *lengths, 0.0]
    for duration, before, after in zip(durations, edges, edges[1:], strict=False):
        assert before + after <= duration + 0.0401
    assert sequence_length(durations, wanted_s, 25) > 0


@given(st.integers(1, 500))
def test_groups_cover_every_clip_once(count: int) -> None:
    parts = groups(count)
    assert list(itertools.chain.from_iterable(parts)) == list(range(count))
    assert max(map(len, parts)) <= 8


@pytest.mark.parametrize(
    ("value", "escaped"),
    [("/a/b", "/a/b"), ("a:b", "a\\\\:b"), ("it's", "it\\\\\\'s"), ("x,y;[z]", "x\\,y\\;\\[z\\]")],
    ids=["plain", "colon", "quote", "graph"],
)
def test_filter_options_are_escaped_twice(value: str, escaped: str) -> None:
    assert escape_option(value) == escaped


@pytest.mark.parametrize(
    ("language", "code"), [("en", "eng"), ("en-GB", "eng"), ("hi", "hin"), ("cmn", "cmn"), ("xx", "und")]
)
def test_languages_are_written_as_mp4_wants_them(language: str, code: str) -> None:
    assert language_code(language) == code
