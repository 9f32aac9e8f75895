"""The moving eyes of one portrait: lids that close and eyes that glance; used by puppet.

The one invariant: an open eye that looks straight ahead is the portrait's own, pixel by pixel.
"""

from typing import Final

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync import face as mesh
from serving.backends.ray.engines.lipsync.arrays import Floats, Picture, smooth
from serving.backends.ray.engines.lipsync.face import Face

GLANCE: Final = (0.075, 0.035)
"""How far the iris goes sideways and up or down at gaze 1, in eye widths."""

LASH_STRIP: Final = 0.13
"""Height of the strip above the lid's edge that moves as it is, lashes and all, in eye widths."""

_DRAWINGS_KEPT: Final = 256
_STEPS: Final = 24
"""Levels into which lid and gaze are rounded, so that frames with the same eyes reuse one drawing."""


class Eye:
    """Draws the region around one eye.

    Args:
        face: the placed portrait.
        canvas: its picture as Y'CbCr, uint8 ``(h, w, 3)``.
        side: 0 for the viewer's left eye, 1 for the right.

    Attributes:
        region: x0, y0, x1, y1 in canvas pixels, all even.
    """

    def __init__(self, face: Face, canvas: Picture, side: int) -> None:
        self._canvas = canvas
        top = face.points[list(mesh.EYES_TOP[side])]
        bottom = face.points[list(mesh.EYES_BOTTOM[side])]
        self._width = float(np.ptp(top[:, 0]))
        luma = cv2.GaussianBlur(canvas[:, :, 0], (0, 0), max(self._width * 0.01, 0.5)).astype(np.float32)
        brow = float(np.mean(face.points[list(mesh.BROWS[side])][:, 1]))
        self.region = self._find_region(top, bottom, brow)
        x0, y0, x1, y1 = self.region
        self._columns, self._rows = (v.astype(np.float32) for v in np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)))
        self._lid, self._floor = self._find_lids(luma, top, bottom)
        self._crease = np.minimum(self._lid - 0.30 * self._width, 0.4 * self._lid + 0.6 * brow)
        self._cache: dict[tuple[int, int, int], Picture] = {}

    def draw(self, blink: float, gaze_x: float, gaze_y: float) -> Picture:
        """The region's picture, Y'CbCr, uint8 ``(h, w, 3)``; not to be changed by the caller.

        Args:
            blink: 0 (open) to 1 (shut).
            gaze_x: -1 (viewer's left) to 1.
            gaze_y: -1 (up) to 1.
        """
        key = (round(blink * _STEPS), round(gaze_x * _STEPS), round(gaze_y * _STEPS))
        if key not in self._cache:
            if len(self._cache) >= _DRAWINGS_KEPT:
                self._cache.clear()
            self._cache[key] = self._draw(*(value / _STEPS for value in key))
        return self._cache[key]

    def _draw(self, blink: float, gaze_x: float, gaze_y: float) -> Picture:
        lid = self._lid + blink * (self._shut() - self._lid)
        strip = np.float32(LASH_STRIP * self._width)
        fixed, moved = self._lid - strip, lid - strip
        rows = self._rows
        stretch = (fixed - self._crease) / np.maximum(moved - self._crease, 1.0)
        source_y = np.where(rows < moved, self._crease + (rows - self._crease) * stretch, rows - (lid - self._lid))
        source_y = np.where(rows < self._crease, rows, source_y)
        # Below the lid's edge one sees the eye, turned by the gaze.
        inside = smooth((rows - self._lid) / np.float32(2.5)) * smooth((self._floor - rows) / np.float32(2.5))
        look_x, look_y = (g * a * self._width for g, a in zip((gaze_x, gaze_y), GLANCE, strict=True))
        under = np.clip(rows - lid + 0.5, 0, 1)
        eye = self._sample(self._columns - look_x * inside, rows - look_y * inside)
        if blink <= 0:
            return eye
        skin = self._sample(self._columns, source_y)
        covered = np.minimum((lid - self._lid) / np.float32(0.12 * self._width), 1)
        shade = 1 - 0.10 * covered * smooth((rows - self._crease) / np.maximum(lid - self._crease, 1.0))
        closed = (skin - (16, 128, 128)) * shade[:, :, None] + (16, 128, 128)
        out = closed + under[:, :, None] * (eye.astype(np.float32) - closed)
        return np.clip(out + 0.5, 0, 255).astype(np.uint8)

    def _shut(self) -> Floats:
        """Where the lid's edge lies when shut: just above the lower lid, as that one rises a little."""
        opening = np.maximum(self._floor - self._lid, 0)
        return np.asarray(self._lid + np.maximum(opening - 0.02 * self._width, 0), np.float32)

    def _sample(self, columns: Floats, rows: Floats) -> Picture:
        return np.asarray(
            cv2.remap(
                self._canvas,
                columns.astype(np.float32),
                rows.astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )

    def _find_region(self, top: Floats, bottom: Floats, brow: float) -> tuple[int, int, int, int]:
        height, width = self._canvas.shape[:2]
        left, right = float(top[:, 0].min()), float(top[:, 0].max())
        x0 = 2 * int(max(left - 0.35 * self._width, 0) // 2)
        x1 = 2 * int(min(right + 0.35 * self._width, width) // 2)
        y0 = 2 * int(max(brow, 0) // 2)
        return x0, y0, x1, 2 * int(min(float(bottom[:, 1].max()) + 0.3 * self._width, height) // 2)

    def _find_lids(self, luma: Floats, top: Floats, bottom: Floats) -> tuple[Floats, Floats]:
        """Rows of the upper lid's edge and of the lower lid, one for each column of the region."""
        columns, unit = self._columns[0], self._width
        upper = mesh.curve_through(top, 41) - _down(0.06 * unit)
        upper = mesh.darkest_line(luma, upper, 0.16 * unit, bias=30.0) + _down(0.03 * unit)
        # The white of the eye ends where brightness falls downwards; drawn and deep-set eyes reach beyond the mesh.
        fall = cv2.Sobel(luma, cv2.CV_32F, 0, 1) * 0.25
        lower = mesh.curve_through(bottom, 41) + _down(0.07 * unit)
        lower = mesh.darkest_line(fall, lower, 0.14 * unit, bias=10.0) + _down(0.03 * unit)
        lid, floor = (_fitted(curve, columns) for curve in (upper, lower))
        left, right = float(top[:, 0].min()), float(top[:, 0].max())
        away = np.maximum(left - columns, columns - right) / np.float32(0.22 * self._width)
        opening = np.maximum(floor - lid, 0) * (1 - smooth(away))
        return lid, lid + opening


def _down(pixels: float) -> Floats:
    return np.array((0, pixels), np.float32)


def _fitted(curve: Floats, columns: Floats) -> Floats:
    """A lid's row at every column: the quartic nearest to ``curve``, held constant beyond its ends."""
    low, high = float(curve[0, 0]), float(curve[-1, 0])
    middle, half = (low + high) / 2, max((high - low) / 2, 1.0)
    fit = np.polynomial.Polynomial.fit((curve[:, 0] - middle) / half, curve[:, 1], 4, domain=[-1, 1])
    return np.asarray(fit((np.clip(columns, low, high) - middle) / half), np.float32)
