"""The moving mouth of one portrait: warps lips, jaw and cheeks and paints what an open mouth shows; used by puppet.

The one invariant: at rest the portrait comes back pixel by pixel, and nothing outside the region changes.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.lipsync import face as mesh
from serving.backends.ray.engines.lipsync.arrays import Floats, Picture
from serving.backends.ray.engines.lipsync.colour import OFFSET
from serving.backends.ray.engines.lipsync.face import Face
from serving.backends.ray.engines.lipsync.inside import Inside
from serving.backends.ray.engines.lipsync.inverse import inverse
from serving.backends.ray.engines.lipsync.mouth_shape import Lips, lower_field, upper_field, weights

GRID_PX: Final = 5
"""Distance of the nodes at which a warp is computed; between them it is interpolated."""

SEAM_POINTS: Final = 49
_VISIBLE_PX: Final = 0.35
_PARTED: Final = 0.09
_SUBPIXEL_BITS: Final = 4


class Mouth:
    """Draws the region around the mouth for any mouth shape.

    Args:
        face: the placed portrait.
        canvas: its picture as Y'CbCr, uint8 ``(h, w, 3)``.

    Attributes:
        region: x0, y0, x1, y1 in canvas pixels, all even.
    """

    def __init__(self, face: Face, canvas: Picture) -> None:
        points = face.points
        left, right = points[mesh.LIP_TOP[0]], points[mesh.LIP_TOP[-1]]
        self.unit = float(np.linalg.norm(right - left))
        self._centre = (left + right) / 2
        along = (right - left) / self.unit
        self._axes = np.stack((along, np.array((-along[1], along[0]))))
        self._canvas = canvas
        luma = cv2.GaussianBlur(canvas[:, :, 0], (0, 0), max(self.unit * 0.008, 0.5)).astype(np.float32)
        self.lips = self._find_lips(points, luma)
        self.region = self._find_region(canvas)
        x0, y0, x1, y1 = self.region
        self._nodes = _node_grid(self.region)
        s, t = self._local(self._nodes)
        border = _border_window(*s.shape)
        self._fields = [self._to_pixels(f(self.lips, s, t)) * border for f in (upper_field, lower_field)]
        seam = [(upper_field, self.lips.top), (lower_field, self.lips.bottom)]
        self._edges = [self._to_global(self.lips.s, edge) for _, edge in seam]
        self._edge_moves = [self._to_pixels(f(self.lips, self.lips.s, edge)) for f, edge in seam]
        rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        inner_s, inner_t = self._local(np.stack((columns, rows)))
        self._identity = np.stack((columns, rows))
        self._inside = Inside(inner_s, inner_t, self.unit, self.lips, _skin_light(canvas, points))

    def draw(self, shape: Floats, smile: float) -> Picture:
        """The region's picture, Y'CbCr, uint8 ``(h, w, 3)``.

        Args:
            shape: float32 ``(8,)``, a row of a mouth track.
            smile: 0..1.
        """
        strength = weights(shape, smile)
        upper, lower = (
            edge + np.tensordot(strength, move, 1).T for edge, move in zip(self._edges, self._edge_moves, strict=True)
        )
        # The two edges may cross by a rounding error of the fields; the mouth cannot.
        lower = np.where((lower - upper)[:, 1:] < 0, (lower + upper) / 2, lower)
        upper = np.where((lower - upper)[:, 1:] <= 0, lower, upper)
        source = self._source(strength, upper, lower)
        region = np.asarray(
            cv2.remap(self._canvas, source[0], source[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        gap = float(np.max(lower[:, 1] - upper[:, 1]))
        if gap > _VISIBLE_PX:
            self._open(region, upper, lower, shape)
        return region

    def opening_px(self, shape: Floats, smile: float = 0.0) -> float:
        """Distance between the lips in the middle of the mouth, in canvas pixels."""
        strength = weights(shape, smile)
        upper, lower = (
            edge + np.tensordot(strength, move, 1).T for edge, move in zip(self._edges, self._edge_moves, strict=True)
        )
        return float(max((lower - upper)[len(lower) // 2, 1], 0.0))

    def _source(self, strength: Floats, upper: Floats, lower: Floats) -> Floats:
        """Where in the canvas every pixel of the region comes from: float32 ``(2, h, w)``."""
        x0, y0, x1, y1 = self.region
        size = (x1 - x0, y1 - y0)
        maps = []
        for field in self._fields:
            forward = np.tensordot(strength, field, 1)
            back = inverse(forward / GRID_PX) * GRID_PX
            maps.append([cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in back])
        below = self._below((upper + lower) / 2)
        return np.stack([self._identity[k] - cv2.copyTo(maps[1][k], below, maps[0][k]) for k in (0, 1)])

    def _below(self, middle: Floats) -> Picture:
        """Mask (0 or 255) of the region's part below the mouth's line, prolonged to both sides."""
        x0, y0, x1, y1 = self.region
        reach = self._axes[0] * (x1 - x0)
        outline = np.concatenate(
            (
                middle[:1] - reach,
                middle,
                middle[-1:] + reach,
                [(x1 + 2 * self.unit, y1 + 2 * self.unit), (x0 - 2 * self.unit, y1 + 2 * self.unit)],
            )
        ) - (x0, y0)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [_fixed(outline)], 255, shift=_SUBPIXEL_BITS)
        return mask

    def _open(self, region: Picture, upper: Floats, lower: Floats, shape: Floats) -> None:
        """Paint the inside of the mouth between the two edges into ``region``."""
        outline = np.concatenate((upper, lower[::-1])) - self.region[:2]
        pad = int(self.unit * 0.06) + 3
        low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - pad, 0)
        high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + pad, (region.shape[1], region.shape[0]))
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [_fixed(outline - low)], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        alpha = cv2.GaussianBlur(mask, (0, 0), 0.9).astype(np.float32) / 255
        painted = self._inside.paint(part, mask, shape)
        target = region[part]
        blended = target + alpha[:, :, None] * (painted + OFFSET - target)
        region[part] = np.clip(blended + 0.5, 0, 255).astype(np.uint8)

    def _find_lips(self, points: Floats, luma: Floats) -> Lips:
        """Measure the mouth at rest; closed lips are found by the dark line between them."""
        edges = []
        for indices in (mesh.SEAM_TOP, mesh.SEAM_BOTTOM):
            s, t = self._local(points[list(indices)].T)
            s[0], s[-1] = -0.5, 0.5
            t[0] = t[-1] = 0.0
            edges.append(mesh.curve_through(np.stack((s, t), axis=1), SEAM_POINTS))
        along = edges[0][:, 0]
        top, bottom = edges[0][:, 1], edges[1][:, 1]
        if float(np.max(bottom - top)) < _PARTED:
            middle = self._to_global(along, (top + bottom) / 2)
            found = mesh.darkest_line(luma, middle.astype(np.float32), 0.09 * self.unit, bias=14.0)
            line = self._local(found.T)[1]
            line = np.convolve(np.pad(line, 2, mode="edge"), np.hanning(7)[1:-1] / 3.0, mode="valid")
            top = bottom = line.astype(np.float32)
        tips = self._local(points[[mesh.CHIN, mesh.NOSE_BASE]].T)[1]
        return Lips(along, top, np.maximum(bottom, top), float(max(tips[0], 0.3)), float(min(tips[1], -0.2)))

    def _find_region(self, canvas: Picture) -> tuple[int, int, int, int]:
        unit, (x, y) = self.unit, self._centre
        height, width = canvas.shape[:2]
        low = (x - 1.3 * unit, y + (self.lips.nose - 0.1) * unit)
        high = (x + 1.3 * unit, y + (self.lips.chin + 0.75) * unit)
        x0, y0 = (2 * int(max(v, 0) // 2) for v in low)
        return x0, y0, 2 * int(min(high[0], width) // 2), 2 * int(min(high[1], height) // 2)

    def _local(self, at: Floats) -> tuple[Floats, Floats]:
        """Canvas pixels ``(2, ...)`` to the mouth's own coordinates s and t."""
        x, y = at[0] - self._centre[0], at[1] - self._centre[1]
        (ax, ay), (bx, by) = self._axes / self.unit
        return (x * ax + y * ay).astype(np.float32), (x * bx + y * by).astype(np.float32)

    def _to_global(self, s: Floats, t: Floats) -> Floats:
        return np.asarray(self._centre + self.unit * (s[:, None] * self._axes[0] + t[:, None] * self._axes[1]))

    def _to_pixels(self, field: Floats) -> Floats:
        """Displacements ``(parts, 2, ...)`` in mouth units along s, t to pixels along x, y."""
        return np.asarray(np.einsum("ab,pa...->pb...", self._axes * self.unit, field), np.float32)


def _node_grid(region: tuple[int, int, int, int]) -> Floats:
    """Canvas positions ``(2, rows, columns)`` of the nodes, as cv2.resize places them."""
    x0, y0, x1, y1 = region
    columns, rows = max((x1 - x0) // GRID_PX, 2), max((y1 - y0) // GRID_PX, 2)
    x = x0 + (np.arange(columns) + 0.5) * (x1 - x0) / columns - 0.5
    y = y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows - 0.5
    return np.stack(np.meshgrid(x, y)).astype(np.float32)


def _border_window(rows: int, columns: int) -> Floats:
    """1 inside, falling to 0 in the outermost nodes."""
    ramp = [np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / 3.0, 0, 1) for n in (rows, columns)]
    return np.asarray(ramp[0][:, None] * ramp[1][None, :], np.float32)


def _fixed(outline: Floats) -> NDArray[np.int32]:
    """Fixed-point coordinates for cv2's ``shift``."""
    return np.round(outline * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _skin_light(canvas: Picture, points: Floats) -> float:
    """How bright the face is lit, 0.45..1: its cheeks' luma against that of well-lit fair skin."""
    rows, columns = canvas.shape[:2]
    places = points[[50, 280, 151, 205, 425]]
    values = [float(canvas[min(max(int(y), 0), rows - 1), min(max(int(x), 0), columns - 1), 0]) for x, y in places]
    return float(np.clip(0.35 + 0.65 * np.median(values) / 165.0, 0.45, 1.0))
