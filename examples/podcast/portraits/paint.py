"""SVG drawing primitives (smooth curves, soft shapes, tapered hair) for the example portraits; used by people and draw.

The one invariant: every random choice comes from a seeded generator, so a portrait is drawn the same every time.
"""

import math
import random
from collections.abc import Iterable, Sequence

Point = tuple[float, float]


def curve(points: Sequence[Point], *, closed: bool = False) -> str:
    """SVG path data of a smooth (Catmull-Rom) curve through ``points``."""
    count = len(points)

    def at(i: int) -> Point:
        return points[i % count] if closed else _held(points, i)

    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for i in range(count if closed else count - 1):
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = at(i - 1), at(i), at(i + 1), at(i + 2)
        parts.append(
            f"C{x1 + (x2 - x0) / 6:.1f} {y1 + (y2 - y0) / 6:.1f} "
            f"{x2 - (x3 - x1) / 6:.1f} {y2 - (y3 - y1) / 6:.1f} {x2:.1f} {y2:.1f}"
        )
    return "".join(parts) + ("Z" if closed else "")


def _held(points: Sequence[Point], i: int) -> Point:
    """The ``i``-th point, with the ends held beyond them."""
    return points[min(max(i, 0), len(points) - 1)]


def mirrored(half: Sequence[Point]) -> list[Point]:
    """Close an outline that is symmetric about x = 0, given its right half from top to bottom."""
    left = [(-x, y) for x, y in reversed(half) if x > 0]
    return [*half, *left]


def shape(points: Sequence[Point], fill: str, *, opacity: float = 1.0, blur: float = 0.0, extra: str = "") -> str:
    """A filled smooth closed shape; ``blur`` is the Gaussian radius in units of the drawing."""
    return path(curve(points, closed=True), fill=fill, opacity=opacity, blur=blur, extra=extra)


def line(
    points: Sequence[Point],
    stroke: str,
    width: float,
    *,
    opacity: float = 1.0,
    blur: float = 0.0,
    extra: str = "",
) -> str:
    """A smooth open stroke with round ends."""
    style = f'stroke="{stroke}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round" {extra}'
    return path(curve(points), fill="none", opacity=opacity, blur=blur, extra=style)


def path(data: str, *, fill: str, opacity: float = 1.0, blur: float = 0.0, extra: str = "") -> str:
    """A path element, softened by one of the filters of :func:`soft_filters`."""
    soft = f' filter="url(#{blur_name(blur)})"' if blur else ""
    faint = f' opacity="{opacity}"' if opacity < 1 else ""
    return f'<path d="{data}" fill="{fill}"{faint}{soft} {extra}/>'


def ellipse(
    centre: Point,
    radii: Point,
    fill: str,
    *,
    opacity: float = 1.0,
    blur: float = 0.0,
    turn: float = 0.0,
    extra: str = "",
) -> str:
    """An ellipse turned clockwise by ``turn`` degrees."""
    soft = f' filter="url(#{blur_name(blur)})"' if blur else ""
    (x, y), (rx, ry) = centre, radii
    about = f' transform="rotate({turn} {x} {y})"' if turn else ""
    return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}" opacity="{opacity}"{soft}{about} {extra}/>'


BLURS = (1, 2, 3, 4, 6, 8, 10, 14, 18, 24, 32, 44, 60)
"""Gaussian radii that a drawing may use."""


def blur_name(radius: float) -> str:
    """Id of the filter for a radius of :data:`BLURS`."""
    if radius not in BLURS:
        raise ValueError(f"blur {radius} is not one of {BLURS}")
    return f"blur{radius}"


def soft_filters() -> str:
    """Definitions of the blur filters; a wide region keeps soft edges from being cut."""
    return "".join(
        f'<filter id="blur{r}" x="-100%" y="-100%" width="300%" height="300%" color-interpolation-filters="sRGB">'
        f'<feGaussianBlur stdDeviation="{r}"/></filter>'
        for r in BLURS
    )


def gradient(name: str, stops: Iterable[tuple[float, str, float]], *, vector: str = "") -> str:
    """A gradient in the drawing's units: linear for ``x1= y1= x2= y2=``, radial for ``cx= cy= r=``."""
    kind = "radialGradient" if "cx=" in vector else "linearGradient"
    inner = "".join(f'<stop offset="{o}" stop-color="{c}" stop-opacity="{a}"/>' for o, c, a in stops)
    return f'<{kind} id="{name}" gradientUnits="userSpaceOnUse" {vector}>{inner}</{kind}>'


def clip(name: str, data: str) -> str:
    """A clip region."""
    return f'<clipPath id="{name}"><path d="{data}"/></clipPath>'


def group(content: Iterable[str], *, clip_to: str = "", extra: str = "") -> str:
    """A group, cut to a clip region when named."""
    cut = f' clip-path="url(#{clip_to})"' if clip_to else ""
    return f"<g{cut} {extra}>" + "".join(content) + "</g>"


def sample(points: Sequence[Point], count: int) -> list[Point]:
    """``count`` points along the Catmull-Rom curve through ``points``."""
    last = len(points) - 1
    out: list[Point] = []
    for k in range(count):
        position = k / (count - 1) * last
        i = min(int(position), last - 1)
        t = position - i
        p0, p1, p2, p3 = (_held(points, i + step) for step in (-1, 0, 1, 2))
        out.append((_catmull_rom(p0[0], p1[0], p2[0], p3[0], t), _catmull_rom(p0[1], p1[1], p2[1], p3[1], t)))
    return out


def _catmull_rom(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)


def tapered(points: Sequence[Point], width: float) -> str:
    """Path data of one hair: a stroke that is ``width`` wide in the middle and pointed at both ends."""
    last = len(points) - 1
    left: list[Point] = []
    right: list[Point] = []
    for i, (x, y) in enumerate(points):
        (xa, ya), (xb, yb) = points[max(i - 1, 0)], points[min(i + 1, last)]
        length = math.hypot(xb - xa, yb - ya) or 1.0
        half = width / 2 * math.sin(math.pi * (0.06 + 0.88 * i / last))
        nx, ny = -(yb - ya) / length * half, (xb - xa) / length * half
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return curve([*left, *reversed(right)], closed=True)


def hair(
    first: Sequence[Point],
    second: Sequence[Point],
    colours: Sequence[str],
    *,
    count: int,
    width: float,
    seed: int,
    jitter: float = 6.0,
    opacity: tuple[float, float] = (0.25, 0.7),
) -> str:
    """``count`` hairs between two guide curves of equal length, each jittered and shortened a little."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        u = rng.random()
        shift = (rng.gauss(0, jitter), rng.gauss(0, jitter))
        guide = [
            (a[0] * (1 - u) + b[0] * u + shift[0], a[1] * (1 - u) + b[1] * u + shift[1])
            for a, b in zip(first, second, strict=True)
        ]
        fine = sample(guide, 14)
        start, stop = rng.randint(0, 4), rng.randint(9, 14)
        out.append(
            path(
                tapered(fine[start:stop], width * rng.uniform(0.5, 1.4)),
                fill=rng.choice(list(colours)),
                opacity=round(rng.uniform(*opacity), 2),
            )
        )
    return "".join(out)
