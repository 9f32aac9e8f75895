"""Eyes, brows, nose, mouth and skin shading of the example portraits, in face coordinates; used by people.

The one invariant: the origin lies between the eyes, y grows downwards, the chin is near y = 265 and light falls from
the upper left.
"""

# fmt: off
import math
from collections.abc import Callable
from dataclasses import dataclass

from paint import Point, clip, curve, ellipse, gradient, group, hair, line, path, shape


@dataclass(frozen=True)
class Skin:
    """Five tones of one skin, from highlight to deepest shadow, and the blood under it."""

    light: str
    base: str
    shade: str
    deep: str
    line: str
    blush: str


@dataclass(frozen=True)
class EyeStyle:
    """What makes one person's eyes theirs."""

    iris: tuple[str, str, str]
    lash: str
    lash_width: float
    lashes: int
    shadow: str
    open: float = 1.0
    size: float = 1.12


@dataclass(frozen=True)
class LipStyle:
    """Upper, lower and highlight colour of the lips and how full they are."""

    upper: str
    lower: str
    shine: str
    line: str
    fullness: float = 1.0
    width: float = 1.0


Placer = Callable[[list[Point]], list[Point]]

EYE_X = 87.0
MOUTH_Y = 172.0


def eye(side: int, style: EyeStyle, skin: Skin) -> tuple[str, str]:
    """Definitions and drawing of one eye; ``side`` is -1 for the viewer's left."""
    o = style.open

    def at(points: list[Point]) -> list[Point]:
        return [(side * (EYE_X + u), v) for u, v in points]

    upper = at([(-45, 7), (-33, -7 * o), (-10, -20 * o), (14, -20.5 * o), (35, -11 * o), (47, -2)])
    lower = at([(47, -2), (37, 8), (14, 16.5), (-12, 16.5), (-33, 11), (-45, 7)])
    ball = curve(upper) + curve(lower).replace("M", "L", 1) + "Z"
    name = f"eye{'L' if side < 0 else 'R'}"
    cx, cy = side * (EYE_X + 1), -4.0
    pale, mid, dark = style.iris
    definitions = clip(name, ball) + gradient(
        f"{name}iris",
        [(0, pale, 1), (0.45, mid, 1), (0.86, dark, 1), (1, "#120a08", 1)],
        vector=f'cx="{cx - 3}" cy="{cy + 7}" r="25"',
    )
    rays = "".join(
        line([(cx + 9 * dx, cy + 9 * dy), (cx + 18 * dx, cy + 18 * dy)], pale, 1.1, opacity=0.35)
        for dx, dy in ((0, 1), (0.5, 0.87), (-0.5, 0.87), (0.87, 0.5), (-0.87, 0.5), (1, 0), (-1, 0), (0.26, 0.97))
    )
    inside = [
        path(ball, fill="#f3ece6"),
        ellipse((side * (EYE_X - 42), 6), (9, 7), "#d08f83", opacity=0.8, blur=2),
        ellipse((side * (EYE_X + 44), 4), (14, 18), "#b99a8d", opacity=0.55, blur=6),
        ellipse((cx, cy), (20.5, 20.5), f"url(#{name}iris)"),
        rays,
        ellipse((cx, cy), (9.6, 9.6), "#0b0605"),
        path(curve(at([(-50, -8), (-33, -7 * o), (-10, -20 * o), (14, -20 * o), (36, -10 * o), (52, -6),
                       (30, -40), (-30, -40)]), closed=True), fill="#2a1510", opacity=0.55, blur=4),
        ellipse((cx - 7, cy - 8), (5.2, 5.6), "#ffffff", opacity=0.96),
        ellipse((cx + 7, cy + 8), (3.0, 2.4), "#ffffff", opacity=0.5, blur=1),
        line(lower, "#e8b9a4", 3.0, opacity=0.7),
    ]
    middle = side * EYE_X
    place = f'transform="translate({middle} 0) scale({style.size}) translate({-middle} 0)"'
    parts = [*_socket(at, style, skin), group(inside, clip_to=name), *_lids(at, style, skin)]
    return definitions, group(parts, extra=place)


def _socket(at: Placer, style: EyeStyle, skin: Skin) -> list[str]:
    """Soft shadow of the eye socket and the lid, below the eye itself."""
    return [
        shape(at([(-62, 0), (-45, -34), (0, -42), (45, -32), (66, -4), (40, 24), (0, 28), (-42, 22)]), skin.shade,
              opacity=0.42, blur=14),
        shape(at([(-47, 4), (-34, -16), (-8, -32), (18, -33), (42, -20), (54, -4), (40, -4), (0, -14)]), style.shadow,
              opacity=0.55, blur=4),
        shape(at([(-22, -22), (4, -28), (28, -24), (20, -20), (0, -22)]), skin.light, opacity=0.55, blur=4),
    ]


def _lids(at: Placer, style: EyeStyle, skin: Skin) -> list[str]:
    """Crease, lash line and lashes, above the eye."""
    o, w = style.open, style.lash_width
    parts = [
        line(at([(-40, -7), (-28, -20 * o), (-4, -32 * o), (20, -32 * o), (42, -20 * o), (52, -9)]), skin.deep, 2.2,
             opacity=0.6, blur=1),
        shape(at([(-46, 7.5), (-33, -7 * o), (-10, -20 * o), (14, -20.5 * o), (35, -11 * o), (47, -2), (56, -9),
                  (44, -13 * o - w * 0.4), (34, -12.5 * o - w * 0.8), (13, -21 * o - w), (-10, -20.5 * o - w * 0.8),
                  (-34, -7.5 * o - w * 0.2)]), style.lash, opacity=0.95),
        line(at([(44, 2), (34, 9.5), (12, 16.5), (-12, 15.5), (-30, 11)]), skin.deep, 1.8, opacity=0.55, blur=1),
        line(at([(48, 14), (28, 24), (0, 28), (-26, 24), (-42, 14)]), skin.shade, 3.0, opacity=0.45, blur=3),
    ]
    for i in range(style.lashes):
        t = i / max(style.lashes - 1, 1)
        u, v = 8 + 40 * t, -21.5 * o + 17 * o * t**1.6
        parts.append(
            line(at([(u, v), (u + 4 + 5 * t, v - 7), (u + 7 + 11 * t, v - 12 + 3 * t)]), style.lash, 1.9, opacity=0.9)
        )
    return parts


def brow(side: int, colours: tuple[str, ...], *, thick: float, arch: float, seed: int) -> str:
    """One eyebrow as hairs over a soft base."""

    def at(points: list[Point]) -> list[Point]:
        return [(side * u, v) for u, v in points]

    def middle(t: float) -> float:
        rise, fall = min(1.0, t * 1.9), max(0.0, t - 0.62) / 0.38
        return -48 - (13 + arch) * math.sin(rise * math.pi / 2) + (15 + arch) * fall**1.5

    def reach(t: float) -> float:
        return thick * (0.8 + 0.35 * math.sin(math.pi * min(1.0, t * 1.6))) * (1 - max(0.0, t - 0.4) / 0.72)

    steps = [k / 12 for k in range(13)]
    body = [(36 + 112 * t, middle(t) - 0.42 * reach(t)) for t in steps]
    body += [(36 + 112 * t, middle(t) + 0.42 * reach(t)) for t in reversed(steps)]
    rows = []
    for k in range(36):
        t = k / 35
        x, y, r, lean = 34 + 110 * t, middle(t), reach(t), 5 + 15 * t
        rows.append(hair(at([(x, y + 0.5 * r), (x + lean * 0.5, y), (x + lean, y - 0.55 * r)]),
                         at([(x + 3, y + 0.4 * r), (x + 4 + lean * 0.6, y), (x + 5 + lean, y - 0.3 * r)]),
                         colours, count=4, width=2.1, seed=seed + k, jitter=0.9, opacity=(0.45, 0.9)))
    return shape(at(body), colours[0], opacity=0.72, blur=2) + "".join(rows)


def nose(skin: Skin, *, width: float = 1.0) -> str:
    """Bridge, tip, wings and nostrils."""
    w = width
    return "".join([
        shape([(14, -44), (22, -8), (20, 40), (34 * w, 84), (40 * w, 100), (22, 100), (10, 60), (8, 0)], skin.shade,
              opacity=0.5, blur=8),
        shape([(-16, -40), (-22, -6), (-18, 20), (-24, 60), (-16, 60), (-8, 0)], skin.shade, opacity=0.3, blur=8),
        shape([(-5, -30), (6, -30), (7, 30), (9, 76), (-11, 76), (-7, 30)], skin.light, opacity=0.6, blur=6),
        ellipse((0, 92), (32 * w, 24), skin.shade, opacity=0.22, blur=8),
        ellipse((-4, 83), (13, 10), skin.light, opacity=0.85, blur=6),
        ellipse((-6, 79), (5, 3.6), "#fff3e6", opacity=0.7, blur=2),
        shape([(-34 * w, 112), (-14, 119), (0, 122), (14, 119), (36 * w, 111), (22, 130), (0, 136), (-20, 130)],
              skin.deep, opacity=0.34, blur=6),
        shape([(-25 * w, 107), (-17 * w, 101.5), (-8, 106), (-10, 110.5), (-18 * w, 110.5)], skin.line, opacity=0.85,
              blur=1),
        shape([(25 * w, 107), (17 * w, 101.5), (8, 106), (10, 110.5), (18 * w, 110.5)], skin.line, opacity=0.85,
              blur=1),
        line([(-36 * w, 84), (-42 * w, 96), (-38 * w, 108), (-28 * w, 110)], skin.deep, 2.6, opacity=0.42, blur=2),
        line([(36 * w, 84), (42 * w, 96), (38 * w, 108), (28 * w, 110)], skin.deep, 3.0, opacity=0.62, blur=2),
        line([(-9, 111), (0, 114.5), (9, 111)], skin.deep, 2.4, opacity=0.55, blur=1),
        shape([(-33 * w, 88), (-28 * w, 86), (-27 * w, 96), (-32 * w, 100)], skin.light, opacity=0.5, blur=4),
        line([(-6, 128), (-7, 148)], skin.shade, 5, opacity=0.35, blur=3),
        line([(7, 128), (8, 148)], skin.shade, 5, opacity=0.5, blur=3),
    ])


def lips(style: LipStyle, skin: Skin) -> tuple[str, str]:
    """Definitions and drawing of a closed mouth with a slight smile."""
    f, w, y = style.fullness, style.width, MOUTH_Y
    seam = [(-80 * w, y - 13), (-54 * w, y - 3), (-24 * w, y + 2), (-10, y + 1.5), (0, y + 3.5), (10, y + 1.5),
            (24 * w, y + 2), (54 * w, y - 3), (80 * w, y - 13)]
    top = [(80 * w, y - 13), (52 * w, y - 15 * f), (19 * w, y - 19 * f), (0, y - 13 * f), (-19 * w, y - 19 * f),
           (-52 * w, y - 15 * f), (-80 * w, y - 13)]
    low = [(80 * w, y - 13), (58 * w, y + 9 * f), (26 * w, y + 25 * f), (0, y + 28 * f), (-26 * w, y + 25 * f),
           (-58 * w, y + 9 * f), (-80 * w, y - 13)]
    upper = curve(seam) + curve(top).replace("M", "L", 1) + "Z"
    lower = curve(seam) + curve(low).replace("M", "L", 1) + "Z"
    defs = clip("upperlip", upper) + clip("lowerlip", lower)
    around = [
        shape([(-52, y + 30 * f), (0, y + 37 * f), (52, y + 30 * f), (30, y + 48), (0, y + 52), (-30, y + 48)],
              skin.deep, opacity=0.36, blur=8),
        ellipse((-86 * w, y - 13), (8, 11), skin.deep, opacity=0.35, blur=4),
        ellipse((86 * w, y - 13), (8, 11), skin.deep, opacity=0.45, blur=4),
        path(upper + lower, fill=style.lower, opacity=0.5, blur=2),
    ]
    top_lip = [
        path(upper, fill=style.upper),
        shape([(-60, y + 4), (-20, y - 5), (0, y - 2), (20, y - 5), (60, y + 4), (0, y + 9)], style.line, opacity=0.5,
              blur=4),
        shape([(-34, y - 13 * f), (-16, y - 18 * f), (-4, y - 13 * f), (-18, y - 11 * f)], style.shine, opacity=0.4,
              blur=3),
    ]
    low_lip = [
        path(lower, fill=style.lower),
        shape([(-64, y + 14), (-30, y + 28 * f), (0, y + 30 * f), (60, y + 20 * f), (40, y + 44), (-40, y + 44)],
              style.upper, opacity=0.65, blur=6),
        shape([(-40, y + 9), (-20, y + 7), (6, y + 9), (4, y + 15 * f), (-20, y + 16 * f)], style.shine, opacity=0.6,
              blur=4),
        shape([(-28, y + 10), (-14, y + 9), (-6, y + 11), (-16, y + 13)], "#fff0e8", opacity=0.55, blur=2),
    ]
    line_ = [line(seam, style.line, 3.0, opacity=0.92),
             line([(-84 * w, y - 17), (-80 * w, y - 13), (-72 * w, y - 9)], style.line, 3.4, opacity=0.6, blur=1),
             line([(84 * w, y - 17), (80 * w, y - 13), (72 * w, y - 9)], style.line, 3.4, opacity=0.6, blur=1)]
    return defs, "".join([*around, group(top_lip, clip_to="upperlip"), group(low_lip, clip_to="lowerlip"), *line_])


def face_shading(skin: Skin, *, jaw: float) -> list[str]:
    """Light and shadow over the whole face, to be clipped to its outline."""
    return [
        shape([(110, -250), (240, -230), (260, 290), (40, 300), (120, 200), (150, 60), (140, -80)], skin.deep,
              opacity=0.42, blur=32),
        shape([(-240, -60), (-186, -20), (-188, 60), (-165, 150), (-120, 220), (-60, 262), (-60, 300), (-260, 280)],
              skin.shade, opacity=0.5, blur=18),
        shape([(-120, -200), (60, -210), (80, -120), (20, -84), (-80, -90), (-140, -120)], skin.light, opacity=0.5,
              blur=24),
        ellipse((-112, 72), (56, 40), skin.light, opacity=0.62, blur=18, turn=-24),
        ellipse((108, 74), (46, 34), skin.light, opacity=0.34, blur=18, turn=24),
        ellipse((-112, 98), (56, 36), skin.blush, opacity=0.4, blur=18),
        ellipse((112, 98), (54, 36), skin.blush, opacity=0.4, blur=18),
        ellipse((-6, 232 + jaw), (34, 17), skin.light, opacity=0.42, blur=10),
        line([(-46, 112), (-78, 130), (-98, 158), (-100, 176)], skin.shade, 7, opacity=0.42, blur=4),
        line([(46, 112), (78, 130), (98, 158), (100, 176)], skin.shade, 7, opacity=0.6, blur=4),
    ]
