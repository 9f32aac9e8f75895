"""Where lips, chin and cheeks move: displacement fields of the lower face, one per part of a shape; used by mouth.

The one invariant: both fields agree beside the mouth's corners and fade to zero towards nose, cheeks and neck, so a
warped mouth joins the face without an edge. Units are the mouth's width; s runs along the mouth, t downwards.
"""

from typing import Final, NamedTuple

import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, smooth

JAW_DROP: Final = 0.52
"""Drop of the lower lip at jaw = 1. More than speech has: a smaller mouth reads as mumbling on a screen."""

CHIN_DROP: Final = 0.66
"""How much of it the chin follows; the rest is the lower lip's own stretch."""

CORNER_DROP: Final = 0.15
PARTS: Final = ("jaw", "wide", "narrow", "pout", "upper", "tuck", "press", "smile", "close")


class Lips(NamedTuple):
    """A mouth at rest, in its own units.

    Attributes:
        s: float32 ``(n,)``, -0.5 to 0.5, places along the mouth.
        top: t of the upper lip's inner edge at ``s``.
        bottom: t of the lower lip's inner edge at ``s``.
        chin: t of the chin's tip.
        nose: t of the nose's base, negative.
    """

    s: Floats
    top: Floats
    bottom: Floats
    chin: float
    nose: float


def weights(shape: Floats, smile: float) -> Floats:
    """Strength of every part of PARTS for a row of a mouth track (columns of visemes.PARTS) and a smile of 0..1."""
    jaw, width, pout, upper, tuck, press = (float(v) for v in shape[:6])
    return np.array((jaw, max(width, 0), max(-width, 0), pout, upper, tuck, press, smile, 1.0), np.float32)


def upper_field(lips: Lips, s: Floats, t: Floats) -> Floats:
    """Displacement of everything above the mouth's line: float32 ``(parts, 2, *s.shape)``."""
    place = _Place(lips, s, t, lips.top, upper=True)
    out = _shared(place)
    up = 1 - smooth((-place.tau - 0.12) / np.float32(max(-lips.nose - 0.16, 0.12)))
    out["jaw"][1] += JAW_DROP * CORNER_DROP * place.corner * up
    out["upper"][1] += -0.12 * place.bow * up
    out["tuck"][1] += -0.05 * place.bow * up
    out["narrow"][1] += -0.035 * place.bow * up
    out["pout"][1] += 0.03 * place.bow * up
    out["close"][1] += 0.5 * _gap(lips, s) * up
    return _stack(out)


def lower_field(lips: Lips, s: Floats, t: Floats) -> Floats:
    """Displacement of everything below the mouth's line: float32 ``(parts, 2, *s.shape)``."""
    place = _Place(lips, s, t, lips.bottom, upper=False)
    out = _shared(place)
    lip = 1 - smooth((place.tau - 0.06) / np.float32(max(lips.chin - 0.16, 0.2)))
    wide = 1 - smooth((np.abs(s) - 0.35) / np.float32(0.95))
    neck = 1 - smooth((t - lips.chin - 0.02) / np.float32(0.7))
    opening = lip * (CORNER_DROP * place.corner + place.bowl) + (1 - lip) * CHIN_DROP * wide
    out["jaw"][1] += JAW_DROP * opening * neck
    out["tuck"][1] += (-0.075 * place.bow - 0.5 * place.tau * place.near) * lip
    out["close"][1] += -0.5 * _gap(lips, s) * lip
    return _stack(out)


class _Place:
    """Masks that several parts share, at the places ``s``, ``t``."""

    def __init__(self, lips: Lips, s: Floats, t: Floats, edge: Floats, *, upper: bool) -> None:
        x = np.abs(s) * 2
        self.s = s
        line = np.interp(s, lips.s, edge).astype(np.float32)
        # Beyond its own lip's edge a field goes on unchanged; otherwise it would fold there and could not be inverted.
        self.tau = np.minimum(t - line, 0) if upper else np.maximum(t - line, 0)
        self.level = np.float32(0.62 * np.max(edge)) - line
        self.bow = np.clip(1 - x * x, 0, 1) ** np.float32(1.2)
        self.bowl = np.clip(1 - 0.55 * x**2 - 0.45 * x**6, 0, 1)
        self.corner = smooth((x - 0.3) / np.float32(0.7)) * (1 - smooth((x - 1) / np.float32(1.1)))
        beside = 1 - smooth((x - 1) / np.float32(0.85))
        above = 1 - smooth((-self.tau - 0.03) / np.float32(max(-lips.nose - 0.16, 0.14)))
        below = 1 - smooth((self.tau - 0.14) / np.float32(0.30))
        self.around = beside * (above if upper else below)
        self.band = beside * (1 - smooth((np.abs(self.tau) - 0.10) / np.float32(0.24)))
        self.near = (1 - smooth((np.abs(self.tau) - 0.12) / np.float32(0.26))) * (
            1 - smooth((x - 0.6) / np.float32(0.7))
        )
        self.at_corner = np.exp(-(((x - 1) / 0.5) ** 2) - (self.tau / 0.32) ** 2)


def _shared(place: _Place) -> dict[str, Floats]:
    """Parts that move upper and lower lip alike, as arrays ``(2, ...)`` of s and t displacement."""
    out = {part: np.zeros((2, *place.s.shape), np.float32) for part in PARTS}
    sideways = place.s * place.around
    out["jaw"][0] = -0.10 * sideways
    out["wide"][0], out["wide"][1] = 0.19 * sideways, -0.12 * place.tau * place.near
    # Rounded lips lose the curve that the mouth has at rest; a dropping jaw takes part of it.
    out["jaw"][1] = 0.4 * place.level * place.band
    out["narrow"][0], out["narrow"][1] = -0.34 * sideways, 0.8 * place.level * place.band
    out["pout"][1] = 0.30 * place.tau * place.near
    out["press"][0], out["press"][1] = 0.03 * sideways, -0.34 * place.tau * place.near
    out["smile"][0] = 0.06 * np.sign(place.s) * place.at_corner
    out["smile"][1] = -0.075 * place.at_corner
    return out


def _gap(lips: Lips, s: Floats) -> Floats:
    """Opening of the mouth at rest, which "close" takes away."""
    return np.interp(s, lips.s, lips.bottom - lips.top).astype(np.float32)


def _stack(out: dict[str, Floats]) -> Floats:
    return np.stack([out[part] for part in PARTS])
