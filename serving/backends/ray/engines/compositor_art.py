"""The still art of a split screen: background, panel frames and lower thirds; drawn with Pillow for the compositor.

The one invariant: a panel's frame is opaque around the panel's rounded corners and clear inside, so one overlay
rounds the picture, lights it and labels it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from serving.media.drawing import (
    Colour,
    TextStyle,
    draw_text,
    fit,
    soft_light,
    text_width,
    vertical_fade,
)
from serving.media.layout import Box, SplitLayout

if TYPE_CHECKING:
    from PIL import Image

INK: Final[Colour] = (11, 14, 24)
PAPER: Final[Colour] = (246, 244, 240)
MUTED: Final[Colour] = (178, 184, 200)
AMBER: Final[Colour] = (255, 179, 71)
TEAL: Final[Colour] = (72, 209, 196)

SMOOTH: Final = 2
"""Shapes are drawn this many times larger and scaled down: Pillow's own edges are not smooth."""


class Label(NamedTuple):
    """What stands in a lower third, and the person's colour."""

    name: str
    title: str
    accent: Colour


def background(width: int, height: int, layout: SplitLayout, heading: str) -> Image.Image:
    """The ground behind the panels, RGB, with the heading on it."""
    from PIL import ImageDraw

    lights = [
        (0.10, 0.02, 0.75, (58, 34, 66)),
        (0.92, 0.05, 0.70, (14, 58, 74)),
        (0.50, height / width, 0.60, (26, 30, 58)),
    ]
    ground = soft_light((width, height), INK, lights)
    if heading and layout.heading.height:
        _heading(ImageDraw.Draw(ground, "RGBA"), layout, heading)
    return ground


def _heading(draw: object, layout: SplitLayout, heading: str) -> None:
    """Two small lights in the speakers' colours, then the words, set on the band's optical middle."""
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)  # noqa: S101 - narrows a type that is imported on demand
    scale, band = layout.scale, layout.heading
    baseline = band.height * 0.62
    dot, left = 7 * scale, band.x + 4 * scale
    middle = baseline - 10 * scale
    for index, colour in enumerate((AMBER, TEAL)):
        x = left + index * dot * 2.0
        draw.ellipse((x, middle - dot, x + 2 * dot, middle + dot), fill=(*colour, 235 - 30 * index))
    start = left + 5.6 * dot
    style = TextStyle(30 * scale, heading=True)
    room = band.x + band.width - start
    text, style = fit(heading, style, room, smallest_px=18 * scale)
    draw_text(draw, (start, baseline), text, style, PAPER)


def panel_frames(
    ground: Image.Image, panel: Box, halo: int, scale: float, label: Label, steps: int
) -> list[Image.Image]:
    """Frames of one panel from silent to speaking.

    Args:
        ground: the background, whose piece around the panel shows outside the rounded corners.
        panel: the panel in the picture.
        halo: how far the frame reaches over the panel on each side.
        scale: factor on sizes.
        label: the person.
        steps: pictures in between, both ends included.

    Returns:
        RGBA pictures of the panel's size plus the halo on each side.
    """
    from PIL import Image

    silent = _frame(ground, panel, halo, scale, label, lit=False)
    speaking = _frame(ground, panel, halo, scale, label, lit=True)
    return [Image.blend(silent, speaking, step / (steps - 1)) for step in range(steps)]


def _frame(ground: Image.Image, panel: Box, halo: int, scale: float, label: Label, *, lit: bool) -> Image.Image:
    size = (panel.width + 2 * halo, panel.height + 2 * halo)
    radius = 22 * scale
    window = (halo, halo, halo + panel.width, halo + panel.height)
    frame = ground.crop(
        (panel.x - halo, panel.y - halo, panel.x + panel.width + halo, panel.y + panel.height + halo)
    ).convert("RGBA")
    if lit:
        frame.alpha_composite(_halo_light(size, window, radius, halo, label.accent))
    frame.putalpha(_rounded_mask(size, window, radius, inside=0 if lit else 26, outside=255))
    fade_height = int(panel.height * 0.36)
    fade = vertical_fade((panel.width, fade_height), INK, 0.0, 0.62)
    shade = _blank(size)
    shade.paste(fade, (halo, halo + panel.height - fade_height))
    shade.putalpha(_multiplied(shade, _rounded_mask(size, window, radius, inside=255, outside=0)))
    frame = _over(shade, frame)
    frame = _over(frame, _border(size, window, radius, scale, label.accent, lit=lit))
    return _over(frame, _lower_third(size, window, scale, label, lit=lit))


def _halo_light(
    size: tuple[int, int], window: tuple[int, int, int, int], radius: float, halo: int, accent: Colour
) -> Image.Image:
    """The light of a lit panel on the ground around it; fades out before the frame's own edge."""
    from PIL import Image, ImageDraw, ImageFilter

    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rounded_rectangle(window, radius, fill=190)
    mask = mask.filter(ImageFilter.GaussianBlur(halo * 0.36))
    edge = Image.new("L", size, 0)
    inner = max(1, halo // 3)
    ImageDraw.Draw(edge).rectangle((inner, inner, size[0] - inner, size[1] - inner), fill=255)
    edge = edge.filter(ImageFilter.GaussianBlur(max(0.5, halo * 0.16)))
    light = Image.new("RGBA", size, (*accent, 0))
    light.putalpha(Image.composite(mask, Image.new("L", size, 0), edge))
    return light


def _border(
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    radius: float,
    scale: float,
    accent: Colour,
    *,
    lit: bool,
) -> Image.Image:
    from PIL import Image, ImageDraw

    large = _blank((size[0] * SMOOTH, size[1] * SMOOTH))
    width = max(1, round((3.5 if lit else 1.5) * scale * SMOOTH))
    colour = (*accent, 255) if lit else (255, 255, 255, 46)
    ImageDraw.Draw(large).rounded_rectangle(
        [edge * SMOOTH for edge in window], radius * SMOOTH, outline=colour, width=width
    )
    return large.resize(size, Image.Resampling.LANCZOS)


def _lower_third(
    size: tuple[int, int], window: tuple[int, int, int, int], scale: float, label: Label, *, lit: bool
) -> Image.Image:
    """Name and title on a dark plate with a bar in the person's colour; empty for an empty label."""
    from PIL import Image, ImageDraw

    large = _blank((size[0] * SMOOTH, size[1] * SMOOTH))
    if not label.name and not label.title:
        return large.resize(size)
    unit = scale * SMOOTH
    room = (window[2] - window[0]) * SMOOTH - 120 * unit
    name, name_style = fit(label.name, TextStyle(29 * unit), room, smallest_px=16 * unit)
    title, title_style = fit(label.title, TextStyle(18.5 * unit, light=True), room, smallest_px=12 * unit)
    height = (84 if title else 58) * unit
    width = max(text_width(name, name_style), text_width(title, title_style)) + 58 * unit
    left, bottom = (window[0] + 22 * scale) * SMOOTH, (window[3] - 22 * scale) * SMOOTH
    top = bottom - height
    draw = ImageDraw.Draw(large)
    draw.rounded_rectangle((left, top, left + width, bottom), 14 * unit, fill=(*INK, 214 if lit else 176))
    bar = (left + 16 * unit, top + 16 * unit, left + 21 * unit, bottom - 16 * unit)
    draw.rounded_rectangle(bar, 2.5 * unit, fill=(*label.accent, 255 if lit else 120))
    text_left = left + 36 * unit
    draw_text(draw, (text_left, top + (39 if title else 39.5) * unit), name, name_style, (*PAPER, 255))
    if title:
        draw_text(draw, (text_left, bottom - 19 * unit), title, title_style, (*MUTED, 255))
    return large.resize(size, Image.Resampling.LANCZOS)


def _rounded_mask(
    size: tuple[int, int], window: tuple[int, int, int, int], radius: float, *, inside: int, outside: int
) -> Image.Image:
    from PIL import Image, ImageDraw

    large = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH), outside)
    ImageDraw.Draw(large).rounded_rectangle([edge * SMOOTH for edge in window], radius * SMOOTH, fill=inside)
    return large.resize(size, Image.Resampling.LANCZOS)


def _multiplied(picture: Image.Image, mask: Image.Image) -> Image.Image:
    from PIL import ImageChops

    return ImageChops.multiply(picture.getchannel("A"), mask)


def _over(lower: Image.Image, upper: Image.Image) -> Image.Image:
    from PIL import Image

    return Image.alpha_composite(lower, upper)


def _blank(size: tuple[int, int]) -> Image.Image:
    """Clear, but dark underneath: scaling to half-size chroma would bleed a bright colour into edges."""
    from PIL import Image

    return Image.new("RGBA", size, (*INK, 0))
