"""Text drawing: it shrinks, wraps and shortens, and never leaves its width."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from serving.media.drawing import (
    ELLIPSIS,
    TextStyle,
    draw_text,
    fit,
    runs_of,
    shorten,
    soft_light,
    text_width,
    vertical_fade,
    wrap,
)

STYLE = TextStyle(30)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc WMहिमालय你", min_size=1, max_size=60), st.integers(60, 400))
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, STYLE, width)
    assert text_width(short, STYLE) <= width or short == ELLIPSIS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="abcWM", min_size=1, max_size=12), min_size=1, max_size=20), st.integers(120, 500))
def test_wrapped_lines_fit_and_are_few(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), STYLE, width, max_lines=3)
    assert 1 <= len(lines) <= 3
    assert all(text_width(line, STYLE) <= width for line in lines)


def test_wrapped_lines_are_balanced() -> None:
    assert wrap("one two three four", STYLE, 220, max_lines=2) == ["one two", "three four"]


def test_a_line_shrinks_before_it_is_cut() -> None:
    text, style = fit("A rather long name", STYLE, 200, smallest_px=10)
    assert text == "A rather long name"
    assert style.size_px < 30


def test_scripts_are_set_in_their_own_fonts() -> None:
    assert [run.text for run in runs_of("AI: हिमालय 2", STYLE)] == ["AI: ", "हिमालय 2"]


@pytest.mark.parametrize("anchor", ["l", "m", "r"])
def test_text_lands_where_its_anchor_says(anchor: str) -> None:
    picture = Image.new("L", (300, 60))
    width = draw_text(ImageDraw.Draw(picture), (150, 40), "Hello", STYLE, 255, anchor)  # type: ignore[arg-type]
    left, _, right, _ = picture.getbbox() or (0, 0, 0, 0)
    start = {"l": 150, "m": 150 - width / 2, "r": 150 - width}[anchor]
    assert left == pytest.approx(start, abs=4)
    assert right == pytest.approx(start + width, abs=4)


def test_fades_and_lights_have_the_size_asked_for() -> None:
    fade = vertical_fade((10, 20), (1, 2, 3), 0.0, 1.0)
    assert (fade.size, fade.getpixel((5, 0))[3], fade.getpixel((5, 19))[3]) == ((10, 20), 0, 255)
    light = soft_light((64, 36), (10, 10, 10), [(0.5, 0.25, 0.3, (250, 200, 100))])
    assert light.getpixel((32, 16))[0] > 150 > light.getpixel((0, 0))[0]
