"""The split screen's layout: even numbers, nothing overlaps, whatever the size."""

from hypothesis import given
from hypothesis import strategies as st

from serving.media.layout import panel_size, split_screen_layout

EVEN = st.integers(120, 2048).map(lambda number: number * 2)


@given(EVEN, EVEN, st.booleans(), st.booleans())
def test_panels_are_alike_even_and_inside(width: int, height: int, heading: bool, captions: bool) -> None:
    layout = split_screen_layout(width, height, heading=heading, captions=captions)
    left, right = layout.left, layout.right
    assert all(number % 2 == 0 for box in (left, right) for number in box)
    assert (left.width, left.height, left.y) == (right.width, right.height, right.y)
    assert left.x > 0 and left.x + left.width < right.x and right.x + right.width < width
    assert layout.heading.height <= left.y
    assert left.y + left.height + layout.captions.height <= height
    assert layout.halo <= left.x and left.x + left.width + layout.halo <= right.x


def test_captions_get_a_band_of_their_own() -> None:
    with_band = split_screen_layout(1280, 720, heading=True, captions=True)
    without = split_screen_layout(1280, 720, heading=True, captions=False)
    assert with_band.captions.height > 100
    assert without.left.height - with_band.left.height > 80


def test_a_usual_picture_has_the_panels_graphs_render() -> None:
    assert panel_size(1280, 720, heading=True, captions=True) == (594, 494)
