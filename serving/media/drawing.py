"""Drawing text and soft light with Pillow; used by the compositor and the title cards.

The one invariant: text never leaves the width it is given: it shrinks, then wraps, then ends in an ellipsis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from serving.media.typefaces import Script, font_file, script_of_character

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Tint = tuple[int, int, int, int]

ELLIPSIS: Final = "…"


class TextStyle(NamedTuple):
    """How a text is set.

    Attributes:
        size_px: em of the letters.
        heading: the display cut.
        light: the medium cut.
        tracking_px: extra space after every letter; only sensible for short Latin text.
    """

    size_px: float
    heading: bool = False
    light: bool = False
    tracking_px: float = 0.0


class Run(NamedTuple):
    """A stretch of one script."""

    text: str
    font: ImageFont.FreeTypeFont


def runs_of(text: str, style: TextStyle) -> list[Run]:
    """Cut ``text`` where the script changes and give each part its font; signs stay with what is before them."""
    from PIL import ImageFont

    parts: list[tuple[Script | None, str]] = []
    for character in text:
        script = script_of_character(character)
        if parts and (script is None or parts[-1][0] in (None, script)):
            parts[-1] = (parts[-1][0] or script, parts[-1][1] + character)
        else:
            parts.append((script, character))
    return [
        Run(
            part,
            ImageFont.truetype(
                str(font_file(part, heading=style.heading, light=style.light)), max(1, round(style.size_px))
            ),
        )
        for _, part in parts
    ]


def text_width(text: str, style: TextStyle) -> float:
    """Advance width in pixels."""
    width = sum(run.font.getlength(run.text) for run in runs_of(text, style))
    return float(width) + style.tracking_px * len(text)


def draw_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    style: TextStyle,
    fill: Colour | Tint,
    anchor: str = "l",
) -> float:
    """Write one line; returns its width.

    Args:
        draw: where to.
        position: x of the anchor, y of the baseline.
        text: one line.
        style: font choice and size.
        fill: colour.
        anchor: ``l``, ``m`` or ``r``: which part of the line stands at x.
    """
    width = text_width(text, style)
    x = position[0] - {"l": 0.0, "m": width / 2, "r": width}[anchor]
    for run in runs_of(text, style):
        if style.tracking_px:
            for letter in run.text:
                draw.text((x, position[1]), letter, font=run.font, fill=fill, anchor="ls")
                x += float(run.font.getlength(letter)) + style.tracking_px
        else:
            draw.text((x, position[1]), run.text, font=run.font, fill=fill, anchor="ls")
            x += float(run.font.getlength(run.text))
    return width


def shorten(text: str, style: TextStyle, max_width: float) -> str:
    """The text, cut and ended by an ellipsis where it is too wide."""
    if text_width(text, style) <= max_width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle].rstrip() + ELLIPSIS, style) <= max_width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + ELLIPSIS


def fit(text: str, style: TextStyle, max_width: float, *, smallest_px: float) -> tuple[str, TextStyle]:
    """Shrink one line to a width, not below ``smallest_px``; shorten it when even that is too wide."""
    while style.size_px > smallest_px and (width := text_width(text, style)) > max_width:
        style = style._replace(size_px=max(smallest_px, min(style.size_px - 1, style.size_px * max_width / width)))
    return shorten(text, style, max_width), style


def wrap(text: str, style: TextStyle, max_width: float, *, max_lines: int) -> list[str]:
    """Break at spaces into lines of nearly equal width; the last of too many ends in an ellipsis."""
    greedy = _fill(text.split(), style, max_width)
    if len(greedy) > max_lines:
        lines = [*greedy[: max_lines - 1], " ".join(greedy[max_lines - 1 :])]
        return [shorten(line, style, max_width) for line in lines]
    narrowest = max_width
    for share in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5):
        if len(_fill(text.split(), style, max_width * share)) > len(greedy):
            break
        narrowest = max_width * share
    return [shorten(line, style, max_width) for line in _fill(text.split(), style, narrowest)]


def _fill(words: list[str], style: TextStyle, max_width: float) -> list[str]:
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, style) <= max_width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def vertical_fade(size: tuple[int, int], colour: Colour, top_alpha: float, bottom_alpha: float) -> Image.Image:
    """An RGBA picture of one colour whose opacity (0 to 1) runs smoothly from top to bottom."""
    import numpy as np
    from PIL import Image

    width, height = size
    ramp = np.linspace(0.0, 1.0, max(1, height)) ** 2
    alpha = (top_alpha + (bottom_alpha - top_alpha) * ramp) * 255
    pixels = np.empty((max(1, height), width, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = alpha.round().astype(np.uint8)[:, None]
    return Image.fromarray(pixels, "RGBA")


def soft_light(
    size: tuple[int, int], base: Colour, lights: list[tuple[float, float, float, Colour]], *, seed: int = 0
) -> Image.Image:
    """An RGB ground with round soft lights, and grain that keeps 8-bit gradients from banding.

    Args:
        size: width and height in pixels.
        base: the dark ground.
        lights: centre x, centre y and radius as shares of the width, and colour.
        seed: of the grain.
    """
    import numpy as np
    from PIL import Image

    width, height = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / width
    ground = np.empty((height, width, 3), np.float32)
    ground[:] = base
    for x, y, radius, colour in lights:
        strength = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (radius / 2) ** 2))
        ground += strength[..., None] * (np.asarray(colour, np.float32) - ground) * 0.9
    ground += np.random.default_rng(seed).normal(0.0, 0.8, (height, width, 1)).astype(np.float32)
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8), "RGB")
