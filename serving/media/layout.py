"""Where things stand in a split screen; graphs ask it for clip sizes, the compositor for everything else.

The one invariant: every number is an even count of pixels (yuv420p halves both axes), and nothing overlaps: heading,
panels and captions each have their own band, lower thirds lie inside their panel.
"""

from typing import Final, NamedTuple

_REFERENCE_WIDTH: Final = 1280
_REFERENCE_HEIGHT: Final = 720
_MARGIN: Final = 36
_GAP: Final = 20
_HEADING_BAND: Final = 88
_CAPTION_BAND: Final = 138
_HALO: Final = 14


class Box(NamedTuple):
    """A rectangle in pixels of the picture."""

    x: int
    y: int
    width: int
    height: int


class SplitLayout(NamedTuple):
    """A split screen.

    Attributes:
        left: the left panel.
        right: the right panel, of the same size.
        heading: band for the heading; height 0 without one.
        captions: band for burnt-in captions; height 0 without them.
        halo: pixels around a panel in which its light may shine.
        scale: factor on sizes that are meant for 1280x720.
    """

    left: Box
    right: Box
    heading: Box
    captions: Box
    halo: int
    scale: float


def even(number: float) -> int:
    """The nearest even whole number."""
    return round(number / 2) * 2


def split_screen_layout(width: int, height: int, *, heading: bool, captions: bool) -> SplitLayout:
    """Lay out two panels side by side.

    Args:
        width: pixels of the picture, even.
        height: pixels of the picture, even.
        heading: whether there is one.
        captions: whether captions are burnt in, which get a band of their own under the panels.
    """
    scale = min(width / _REFERENCE_WIDTH, height / _REFERENCE_HEIGHT)
    margin = max(2, even(_MARGIN * scale))
    gap = max(2, even(_GAP * scale))
    top = even(_HEADING_BAND * scale) if heading else margin
    bottom = even(_CAPTION_BAND * scale) if captions else margin
    panel_width = max(2, (width - 2 * margin - gap) // 4 * 2)
    panel_height = max(2, (height - top - bottom) // 2 * 2)
    left = Box(margin, top, panel_width, panel_height)
    return SplitLayout(
        left=left,
        right=left._replace(x=width - margin - panel_width),
        heading=Box(margin, 0, width - 2 * margin, top if heading else 0),
        captions=Box(0, height - bottom, width, bottom if captions else 0),
        halo=min(even(_HALO * scale), margin, gap),
        scale=scale,
    )


def panel_size(width: int, height: int, *, heading: bool, captions: bool) -> tuple[int, int]:
    """Width and height of clips that fill a panel without scaling."""
    panel = split_screen_layout(width, height, heading=heading, captions=captions).left
    return panel.width, panel.height
