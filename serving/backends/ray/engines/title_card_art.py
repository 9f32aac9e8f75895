"""The art of a title card: a palette, one of four abstract scenes, and the title set over it; drawn with Pillow.

The one invariant: the title has a dark, calm ground behind it, whatever the seed drew.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from serving.media.drawing import ELLIPSIS, Colour, TextStyle, draw_text, soft_light, wrap

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MOST_LINES: Final = 3
LARGEST_SMOOTHED_PX: Final = 4_200_000
"""Up to this many pixels shapes are drawn twice as large and scaled down; above, the eye does not miss it."""


class Palette(NamedTuple):
    """Ground, two lights and an accent that carries the eye."""

    ground: Colour
    warm: Colour
    cool: Colour
    accent: Colour


PALETTES: Final = (
    Palette((13, 15, 28), (226, 107, 74), (52, 70, 140), (255, 190, 92)),
    Palette((8, 22, 28), (32, 128, 120), (18, 60, 92), (132, 240, 214)),
    Palette((22, 12, 30), (176, 62, 122), (70, 44, 140), (255, 158, 196)),
    Palette((12, 18, 16), (110, 140, 70), (24, 74, 70), (224, 236, 130)),
    Palette((20, 14, 12), (190, 92, 40), (92, 36, 52), (255, 214, 140)),
    Palette((10, 14, 30), (60, 96, 200), (80, 40, 120), (150, 200, 255)),
)


def draw_card(title: str, prompt: str, size: tuple[int, int], seed: int) -> Image.Image:
    """A finished card, RGB.

    Args:
        title: at most three lines of it are shown.
        prompt: varies the art together with the seed.
        size: width and height in pixels.
        seed: equal seeds and prompts give equal cards.
    """
    random = np.random.default_rng([seed, zlib.crc32(prompt.encode("utf-8", "replace"))])
    palette = PALETTES[int(random.integers(len(PALETTES)))]
    scene = SCENES[int(random.integers(len(SCENES)))]
    card = _ground(palette, size, random)
    card = _with_scene(card, scene, palette, random)
    card = _shaded(card, random)
    _set_title(card, title, palette)
    return card


def _ground(palette: Palette, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    ratio = size[1] / size[0]
    lights = [
        (float(random.uniform(0.62, 0.95)), float(random.uniform(0.05, 0.5)) * ratio, 0.62, palette.warm),
        (float(random.uniform(0.55, 1.0)), float(random.uniform(0.7, 1.1)) * ratio, 0.70, palette.cool),
        (0.05, 1.0 * ratio, 0.55, palette.cool),
    ]
    return soft_light(size, palette.ground, lights, seed=int(random.integers(2**31)))


def _with_scene(card: Image.Image, scene: Scene, palette: Palette, random: np.random.Generator) -> Image.Image:
    from PIL import Image, ImageDraw

    factor = 2 if card.width * card.height <= LARGEST_SMOOTHED_PX else 1
    layer = Image.new("RGBA", (card.width * factor, card.height * factor), (*palette.ground, 0))
    scene(ImageDraw.Draw(layer, "RGBA"), layer.size, palette, random)
    layer = layer.resize(card.size, Image.Resampling.LANCZOS) if factor > 1 else layer
    return Image.alpha_composite(card.convert("RGBA"), layer).convert("RGB")


def _dunes(draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: Palette, random: np.random.Generator) -> None:
    """A low sun behind ridges that darken towards the viewer."""
    width, height = size
    radius = height * float(random.uniform(0.13, 0.2))
    sun_x, sun_y = width * float(random.uniform(0.62, 0.82)), height * float(random.uniform(0.3, 0.42))
    draw.ellipse((sun_x - radius, sun_y - radius, sun_x + radius, sun_y + radius), fill=(*palette.accent, 235))
    columns = np.linspace(0, width, 160)
    for ridge in range(6):
        depth = ridge / 5
        level = height * (0.50 + 0.42 * depth)
        swing = height * (0.035 + 0.05 * depth)
        phase = float(random.uniform(0, 6.28))
        line = level + swing * (
            np.sin(columns / width * (5.2 - 2.4 * depth) + phase) + 0.4 * np.sin(columns / width * 11 + 2 * phase)
        )
        tone = tuple(
            round(far + (near - far) * depth**0.7) for far, near in zip(palette.warm, palette.ground, strict=True)
        )
        points = [*zip(columns.tolist(), line.tolist(), strict=True), (width, height), (0, height)]
        draw.polygon(points, fill=(*tone, 225))


def _orbits(draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: Palette, random: np.random.Generator) -> None:
    """Rings around a centre off to the right, some with a body on them."""
    width, height = size
    x, y = width * float(random.uniform(0.7, 0.82)), height * float(random.uniform(0.4, 0.58))
    core = height * 0.09
    draw.ellipse((x - core, y - core, x + core, y + core), fill=(*palette.accent, 240))
    for ring in range(1, 9):
        radius = height * (0.10 + 0.085 * ring)
        line = max(2, round(height * 0.0022))
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, outline=(*palette.accent, 150 - 14 * ring), width=line)
        angle = float(random.uniform(0, 2 * np.pi))
        body = height * float(random.uniform(0.008, 0.024))
        body_x, body_y = x + radius * np.cos(angle), y + radius * np.sin(angle)
        colour = palette.accent if ring % 2 else palette.warm
        draw.ellipse((body_x - body, body_y - body, body_x + body, body_y + body), fill=(*colour, 245))


def _lights(draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: Palette, random: np.random.Generator) -> None:
    """Discs of light out of focus, denser to the right."""
    width, height = size
    for alpha in np.sort(random.integers(26, 110, 46)).tolist():
        x = width * (1 - float(random.beta(1.2, 2.4)) * 0.75)
        y = height * float(random.uniform(-0.05, 1.05))
        radius = height * float(random.uniform(0.012, 0.095))
        colour = (palette.accent, palette.warm, palette.cool)[int(random.integers(3))]
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=(*colour, alpha), outline=(*colour, alpha + 60), width=max(1, height // 500))


def _beams(draw: ImageDraw.ImageDraw, size: tuple[int, int], palette: Palette, random: np.random.Generator) -> None:
    """A projector's beams from the upper right corner."""
    width, height = size
    source = (width * 1.02, height * float(random.uniform(-0.05, 0.12)))
    edges = np.sort(random.uniform(np.pi * 0.60, np.pi * 1.04, 14))
    for index, (first, last) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        reach = width * 1.4
        corners = [source] + [
            (source[0] + reach * float(np.cos(angle)), source[1] + reach * float(np.sin(angle)))
            for angle in (first, last)
        ]
        colour = (palette.accent, palette.warm)[index % 2]
        draw.polygon(corners, fill=(*colour, int(random.integers(26, 72))))


Scene = Callable[["ImageDraw.ImageDraw", tuple[int, int], Palette, np.random.Generator], None]
SCENES: Final[tuple[Scene, ...]] = (_dunes, _orbits, _lights, _beams)


def _shaded(card: Image.Image, random: np.random.Generator) -> Image.Image:
    """Darken towards the left, where the title stands, and a little at the edges; grain against banding."""
    from PIL import Image

    pixels = np.asarray(card, np.float32)
    rows, columns = np.mgrid[0 : card.height, 0 : card.width].astype(np.float32)
    across, down = columns / card.width, rows / card.height
    shade = 1 - 0.58 * np.clip(1 - across / 0.72, 0, 1) ** 0.8
    shade *= 1 - 0.30 * np.clip(np.hypot(across - 0.5, down - 0.5) - 0.35, 0, 1)
    grain = random.normal(0.0, 1.1, (card.height, card.width, 1)).astype(np.float32)
    return Image.fromarray((pixels * shade[..., None] + grain).clip(0, 255).astype(np.uint8), "RGB")


def _set_title(card: Image.Image, title: str, palette: Palette) -> None:
    """Up to three lines, left of the middle, as large as they fit, over a short rule in the accent colour."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(card)
    unit = min(card.width / 1280, card.height / 720)
    # Moves of the camera (ken_burns) cut up to 14 % off a side; the title stays inside.
    left, room = card.width * 0.165, card.width * 0.62
    for size in (92, 80, 70, 60, 52, 44):
        style = TextStyle(size * unit, heading=True)
        lines = wrap(title, style, room, max_lines=MOST_LINES)
        if len(lines) < MOST_LINES and not lines[-1].endswith(ELLIPSIS):
            break
    leading = style.size_px * 1.1
    top = card.height * 0.47 - leading * len(lines) / 2
    draw.rounded_rectangle((left, top - 34 * unit, left + 84 * unit, top - 27 * unit), 3.5 * unit, fill=palette.accent)
    for number, line in enumerate(lines):
        baseline = top + leading * number + style.size_px * 0.86
        draw_text(draw, (left, baseline + 2 * unit), line, style, palette.ground)
        draw_text(draw, (left, baseline), line, style, (250, 248, 244))
