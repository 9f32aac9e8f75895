"""What an open mouth shows: dark cavity, tongue, teeth and the lips' shadow; painted for mouth.

The one invariant: upper teeth belong to the skull and do not move; lower teeth and tongue go with the jaw.
"""

from typing import Final

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, Picture, smooth
from serving.backends.ray.engines.lipsync.colour import paint
from serving.backends.ray.engines.lipsync.mouth_shape import JAW_DROP, Lips

Part = tuple[slice, slice]

_TOOTH_EDGES: Final = np.array((0.0, 0.108, 0.195, 0.272, 0.34, 0.40), np.float32)
"""Borders between upper teeth to one side, in mouth widths (a central incisor has about 8.5 of a mouth's 52 mm)."""

_JAW, _POUT, _TEETH, _TONGUE = 0, 2, 6, 7


class Inside:
    """Paints the inside of one mouth.

    Args:
        s: float32 ``(h, w)``, mouth coordinate along the mouth of every pixel of the mouth's region.
        t: the same, across.
        unit: mouth width in pixels.
        lips: the mouth at rest.
        light: how bright the face is lit, 0..1.
    """

    def __init__(self, s: Floats, t: Floats, unit: float, lips: Lips, light: float) -> None:
        middle = len(lips.s) // 2
        self._base = float((lips.top[middle] + lips.bottom[middle]) / 2)
        self._unit = unit
        self._s, self._t = s, t - self._base
        self._enamel = paint(238, 229, 214) * light
        self._flesh = paint(186, 84, 82) * light
        self._dark = paint(30, 9, 11)
        self._deep = paint(84, 26, 28) * light
        self._upper = self._upper_teeth()

    def paint(self, part: Part, mask: Picture, shape: Floats) -> Floats:
        """Y'CbCr without OFFSET, float32 ``(h, w, 3)``, for the pixels of ``part``.

        Args:
            part: rows and columns within the mouth's region.
            mask: 255 between the lips.
            shape: a row of a mouth track.
        """
        s, t = self._s[part], self._t[part]
        drop = JAW_DROP * float(shape[_JAW])
        depth = np.clip(t / max(drop, 0.08), 0, 1)[:, :, None]
        colour = self._dark + (self._deep - self._dark) * depth * depth
        colour = self._tongue(colour, s, t, drop, float(shape[_TONGUE]))
        colour = self._lower_teeth(colour, s, t, drop, float(shape[_TEETH]))
        alpha, enamel = self._upper[0][part], self._upper[1][part]
        alpha = alpha * np.float32(1 - 0.8 * float(shape[_POUT]))
        colour += alpha[:, :, None] * (enamel[:, :, None] * self._enamel - colour)
        return np.asarray(colour * self._shadow(mask)[:, :, None], np.float32)

    def _soft(self, distance: Floats) -> Floats:
        """0..1 across about two pixels at the edge where ``distance`` (mouth widths) is zero, 1 where positive."""
        return np.asarray(np.clip(distance * (self._unit / 2.0) + 0.5, 0, 1))

    def _upper_teeth(self) -> tuple[Floats, Floats]:
        """Opacity and brightness of the upper row: an arc, each tooth rounded, darker towards the cheeks."""
        x = np.abs(self._s)
        index = np.clip(np.searchsorted(_TOOTH_EDGES, x, side="right") - 1, 0, len(_TOOTH_EDGES) - 2)
        left, right = _TOOTH_EDGES[index], _TOOTH_EDGES[index + 1]
        across = np.abs((x - left) / (right - left) * 2 - 1)
        edge = 0.105 - 0.30 * x * x - 0.014 * across**4 - 0.012 * (index == 1)
        seams = np.exp(-(((1 - across) * (right - left) / 2 / 0.0055) ** 2))
        bright = (1.0 - 0.62 * smooth((x - 0.1) / np.float32(0.3))) * (1.0 - 0.22 * seams)
        bright *= 0.94 + 0.06 * smooth((self._t + 0.06) / np.float32(0.12))
        alpha = self._soft(edge - self._t) * (1 - smooth((x - 0.33) / np.float32(0.1)))
        return alpha.astype(np.float32), bright.astype(np.float32)

    def _lower_teeth(self, colour: Floats, s: Floats, t: Floats, drop: float, near: float) -> Floats:
        """The lower row stands just above the lower lip; ``near`` brings it up to the upper row, as for "s"."""
        top = drop - 0.045
        top = top + near * (min(top, 0.09) - top)
        edge = top + 0.35 * s * s
        seams = np.exp(-((((np.abs(s) + 0.036) % 0.072 - 0.036) / 0.006) ** 2))
        bright = 0.80 * (1 - 0.7 * smooth((np.abs(s) - 0.06) / np.float32(0.28))) * (1 - 0.2 * seams)
        alpha = self._soft(t - edge) * (1 - smooth((np.abs(s) - 0.26) / np.float32(0.1)))
        return np.asarray(colour + alpha[:, :, None] * (bright[:, :, None] * self._enamel - colour))

    def _tongue(self, colour: Floats, s: Floats, t: Floats, drop: float, raised: float) -> Floats:
        """A soft mound on the floor of the mouth; raised, its tip reaches the upper teeth."""
        top = drop - 0.17 - raised * max(drop - 0.20, 0.0)
        height = 0.34
        round_ = 1 - (s / 0.33) ** 2 - ((t - top - height) / height) ** 2
        alpha = smooth(round_ / np.float32(0.22)) * np.float32(0.8 + 0.2 * raised)
        bright = 0.78 + 0.32 * np.exp(-(((t - top - 0.09) / 0.08) ** 2)) - 0.22 * np.exp(-((s / 0.035) ** 2))
        return np.asarray(colour + alpha[:, :, None] * (bright[:, :, None] * self._flesh - colour))

    def _shadow(self, mask: Picture) -> Floats:
        """Brightness factor: dark along the lips, darkest under the upper one."""
        unit = self._unit
        inner = cv2.GaussianBlur(mask, (0, 0), max(unit * 0.022, 0.6)).astype(np.float32) / 255
        down = max(round(unit * 0.05), 1)
        lowered = np.zeros_like(mask)
        lowered[down:] = mask[:-down]
        lit = cv2.GaussianBlur(lowered, (0, 0), max(unit * 0.03, 0.6)).astype(np.float32) / 255
        return (0.45 + 0.55 * np.clip(inner * 2 - 1, 0, 1)) * (0.5 + 0.5 * lit)
