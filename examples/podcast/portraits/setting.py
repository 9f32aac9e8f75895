"""The soft background behind the people of the podcast example; used by asha and ravi.

The one invariant: a person is drawn in face coordinates (see features) and placed by one transform.
"""

from paint import ellipse, gradient, soft_filters

PLACE = "translate(480 478) scale(0.9)"


def backdrop(width: int, height: int, light: str, mid: str, dark: str) -> str:
    """The gradient that :func:`picture` fills the background with, lit from the upper left."""
    return gradient(
        "backdrop",
        [(0, light, 1), (0.55, mid, 1), (1, dark, 1)],
        vector=f'cx="{width * 0.32}" cy="{height * 0.26}" r="{height * 0.95}"',
    )


def picture(width: int, height: int, definitions: list[str], parts: list[str]) -> str:
    """A whole SVG document of ``width`` x ``height``: background, a few lamps out of focus, and the person."""
    defs = soft_filters() + "".join(definitions)
    lamps = "".join(
        ellipse((width * x, height * y), (r, r), "#ffffff", opacity=a, blur=18)
        for x, y, r, a in ((0.1, 0.2, 60, 0.16), (0.9, 0.14, 80, 0.13), (0.84, 0.42, 46, 0.1), (0.16, 0.5, 40, 0.09))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><defs>{defs}</defs>'
        f'<rect width="{width}" height="{height}" fill="url(#backdrop)"/>{lamps}'
        f'<g transform="{PLACE}">{"".join(parts)}</g></svg>'
    )
