"""The head's motion as one soft warp of the whole panel: sway, turn, nod, brows, breath; used by puppet.

The one invariant: the warp is zero at the panel's upper and side borders, so no edge of the picture ever shows.
"""

from typing import Final

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync import face as mesh
from serving.backends.ray.engines.lipsync.arrays import Floats, smooth
from serving.backends.ray.engines.lipsync.face import Face
from serving.backends.ray.engines.lipsync.motion import Motion

GRID_PX: Final = 8
"""Distance of the nodes, in panel pixels, at which the warp is computed."""


class HeadWarp:
    """Maps of the panel for a head's pose.

    Args:
        face: the placed portrait.
    """

    def __init__(self, face: Face) -> None:
        width, height = face.panel
        self._size = face.panel
        scale = (face.canvas.shape[1] / width, face.canvas.shape[0] / height)
        columns, rows = max(width // GRID_PX, 2), max(height // GRID_PX, 2)
        x = ((np.arange(columns) + 0.5) * width / columns) * scale[0] - 0.5
        y = ((np.arange(rows) + 0.5) * height / rows) * scale[1] - 0.5
        self._grid = np.stack(np.meshgrid(x, y)).astype(np.float32)
        self._basis = self._make_basis(face)
        self._luma_identity = _identity(width, height, scale)
        self._chroma_identity = _identity(width // 2, height // 2, scale)

    def maps(self, motion: Motion, frame: int) -> tuple[Floats, Floats]:
        """Source positions for every pixel of luma and of chroma (half size): float32 ``(h, w, 2)``.

        Positions are pixels of the luma canvas, and of a chroma canvas of half its size.
        """
        strength = np.array(
            [getattr(motion, name)[frame] for name in ("x", "y", "yaw", "pitch", "roll", "brow", "breath")],
            np.float32,
        )
        shift = np.ascontiguousarray(np.tensordot(strength, self._basis, 1).transpose(1, 2, 0))
        width, height = self._size
        luma = cv2.resize(shift, (width, height), interpolation=cv2.INTER_LINEAR)
        chroma = cv2.resize(shift, (width // 2, height // 2), interpolation=cv2.INTER_LINEAR)
        cv2.subtract(self._luma_identity, luma, dst=luma)
        cv2.scaleAdd(chroma, -0.5, self._chroma_identity, dst=chroma)
        return np.asarray(luma, np.float32), np.asarray(chroma, np.float32)

    def _make_basis(self, face: Face) -> Floats:
        """Displacement in canvas pixels per unit of every part of the motion: float32 ``(7, 2, rows, columns)``."""
        unit = face.height / 100.0
        x, y = self._grid
        middle = face.points[[mesh.LEFT_CHEEK, mesh.RIGHT_CHEEK]].mean(axis=0)
        chin, top = face.points[mesh.CHIN], face.points[mesh.FOREHEAD]
        head = self._head_mask(face, middle)
        body = self._body_mask(face) * (1 - head)
        held = head + 0.22 * body
        zero = np.zeros_like(x)
        rx, ry = (x - middle[0]) / (0.62 * face.width), (y - (chin[1] + top[1]) / 2) / (0.72 * face.height)
        depth = np.sqrt(np.clip(1 - rx * rx - ry * ry, 0, 1)) ** np.float32(1.3)
        tip = face.points[mesh.NOSE_TIP]
        depth = depth + 0.45 * np.exp(-(((x - tip[0]) ** 2 + (y - tip[1]) ** 2) / (0.11 * face.height) ** 2))
        pivot = (chin[0], chin[1] + 0.30 * face.height)
        turn = np.float32(np.pi / 180)
        parts = [
            (held * unit, zero),
            (zero, held * unit),
            (depth * unit, zero),
            (zero, depth * unit),
            (-(y - pivot[1]) * turn * head, (x - pivot[0]) * turn * head),
            (zero, -self._brow_mask(face) * 3.2 * unit),
            (zero, -(body + 0.45 * head) * 0.55 * unit),
        ]
        return np.stack([np.stack(part) for part in parts]).astype(np.float32) * self._border()

    def _head_mask(self, face: Face, middle: Floats) -> Floats:
        """1 on the head with its hair, falling off softly into the background and down the neck."""
        x, y = self._grid
        top, chin = face.points[mesh.FOREHEAD], face.points[mesh.CHIN]
        up = np.maximum(middle[1] - y, 0) / ((middle[1] - top[1]) * 1.75)
        down = np.maximum(y - middle[1], 0) / ((chin[1] - middle[1]) * 1.15)
        radius = np.sqrt(((x - middle[0]) / (0.74 * face.width)) ** 2 + up**2 + down**2)
        return np.asarray(1 - smooth((radius - 0.85) / np.float32(0.95)), np.float32)

    def _body_mask(self, face: Face) -> Floats:
        """1 from the shoulders down."""
        chin = face.points[mesh.CHIN]
        return smooth((self._grid[1] - chin[1]) / np.float32(0.5 * face.height))

    def _brow_mask(self, face: Face) -> Floats:
        x, y = self._grid
        mask = np.zeros_like(x)
        for indices in mesh.BROWS:
            points = face.points[list(indices)]
            (cx, cy), wide = points.mean(axis=0), float(np.ptp(points[:, 0]))
            mask += np.exp(
                -(((x - cx) / (0.62 * wide)) ** 2) - ((y - cy + 0.02 * face.height) / (0.085 * face.height)) ** 2
            )
        return np.asarray(np.clip(mask, 0, 1), np.float32)

    def _border(self) -> Floats:
        """Falls to 0 at the top and the sides; the lower border may move, as it is filled by reflection."""
        _, rows, columns = self._grid.shape
        i, j = np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
        side = smooth(np.minimum(j, j[::-1]) / np.float32(max(columns * 0.12, 1)))
        return np.asarray(smooth(i / np.float32(max(rows * 0.1, 1)))[:, None] * side[None, :], np.float32)


def _identity(width: int, height: int, scale: tuple[float, float]) -> Floats:
    """Where in a canvas ``scale`` times as large every pixel of a picture lies: float32 ``(h, w, 2)``."""
    x = (np.arange(width) + 0.5) * scale[0] - 0.5
    y = (np.arange(height) + 0.5) * scale[1] - 0.5
    return np.ascontiguousarray(np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32))
