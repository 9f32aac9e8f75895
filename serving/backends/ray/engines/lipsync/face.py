"""A portrait cut to its panel, and the geometry of its face there; made once per portrait and size, used by puppet.

The one invariant: all geometry is in canvas pixels; the canvas is the panel at SUPERSAMPLING times its size, so that
one resampling of it, at the end, costs no sharpness.
"""

from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from serving.backends.ray.engines.lipsync.arrays import Floats, Picture
from serving.errors import BadInput
from serving.media.pictures import check_picture

SUPERSAMPLING: Final = 1.5
FACE_HEIGHT: Final = 0.36
"""Forehead to chin, as a part of the panel's height, that the crop zooms to."""

EYE_LINE: Final = 0.43
"""Where the eyes lie, as a part of the panel's height, as far as the picture reaches."""

MAX_ZOOM: Final = 3.0
"""How far a picture is enlarged beyond filling the panel."""

_MOSTLY: Final = 0.9
_FLAT_PX: Final = 4
_MUCH_LARGER: Final = 0.6
_FAINTEST_LINE: Final = -8.0

MIN_FACE_PX: Final = 48
"""Smallest face, forehead to chin, in the panel: below it a mouth has too few pixels to be seen moving."""

# Indices of MediaPipe's face mesh (468 points), viewer's left to right.
LIP_TOP: Final = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIP_BOTTOM: Final = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
SEAM_TOP: Final = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
SEAM_BOTTOM: Final = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
EYES_TOP: Final = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
EYES_BOTTOM: Final = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
BROWS: Final = ((70, 63, 105, 66, 107, 46, 53, 52, 65, 55), (336, 296, 334, 293, 300, 285, 295, 282, 283, 276))
FOREHEAD, CHIN, LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP, NOSE_BASE = 10, 152, 234, 454, 1, 2


class Face(NamedTuple):
    """A portrait on its canvas.

    Attributes:
        canvas: uint8 ``(height, width, 3)``, RGB.
        points: float32 ``(468, 2)``, canvas pixels.
        panel: width and height of the panel in pixels.
    """

    canvas: Picture
    points: Floats
    panel: tuple[int, int]

    @property
    def height(self) -> float:
        """Forehead to chin in canvas pixels, the unit of head motion."""
        return float(np.linalg.norm(self.points[CHIN] - self.points[FOREHEAD]))

    @property
    def width(self) -> float:
        """Cheek to cheek in canvas pixels."""
        return float(np.linalg.norm(self.points[RIGHT_CHEEK] - self.points[LEFT_CHEEK]))


def read_portrait(path: Path, name: str) -> Picture:
    """Decode a portrait to RGB, uint8 ``(height, width, 3)``: upright, and on grey where it is transparent.

    Raises:
        BadInput: not a picture, damaged, too small or too large.
    """
    check_picture(path, field="portrait", name=name)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            ground = Image.new("RGBA", upright.size, (128, 132, 138, 255))
            upright = Image.alpha_composite(ground, upright.convert("RGBA"))
        return np.asarray(upright.convert("RGB"))


def place_face(picture: Picture, points: Floats, width: int, height: int) -> Face:
    """Cut ``picture`` to a panel of ``width`` x ``height`` pixels, face in the upper third.

    Args:
        picture: RGB, uint8 ``(h, w, 3)``.
        points: float32 ``(468, 2)``, pixels of the picture.
        width: panel pixels.
        height: panel pixels.

    Raises:
        BadInput: points outside the picture, collapsed or upside down, or a face too small for the panel.
    """
    _check_points(picture, points)
    scale, offset = _crop(picture, points, width, height)
    face_px = scale * float(np.linalg.norm(points[CHIN] - points[FOREHEAD]))
    if face_px < MIN_FACE_PX:
        raise BadInput(
            f"the face is only {face_px:.0f} pixels high in the {width}x{height} panel",
            field="points" if min(width, height) >= 2 * MIN_FACE_PX else "height",
            fix=f"use a portrait with a larger face, or a larger panel: at least {MIN_FACE_PX} pixels are needed",
        )
    size = canvas_size(width, height)
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]) * SUPERSAMPLING
    # Pixel centres: canvas pixel c shows picture position (c + 0.5) / scale - 0.5.
    matrix[:, 2] += 0.5 * scale * SUPERSAMPLING - 0.5
    canvas = _resample(picture, matrix, size)
    moved = points @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    return Face(canvas, moved.astype(np.float32), (width, height))


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the canvas: even, as chroma is stored at half its resolution."""
    return 2 * round(width * SUPERSAMPLING / 2), 2 * round(height * SUPERSAMPLING / 2)


def _check_points(picture: Picture, points: Floats) -> None:
    height, width = picture.shape[:2]
    margin = 0.25 * max(width, height)
    if not np.isfinite(points).all():
        raise BadInput("a point is not a number", field="points", fix="take them from a face_landmarks result")
    low, high = points.min(axis=0), points.max(axis=0)
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1).mean()
    if inside < _MOSTLY or low.min() < -margin or (high > np.array((width, height)) + margin).any():
        raise BadInput(
            f"points reach from {low.round().tolist()} to {high.round().tolist()}, outside the "
            f"{width}x{height} picture",
            field="points",
            fix="give pixels of this very portrait, as its face_landmarks result has them",
        )
    down = points[CHIN] - points[FOREHEAD]
    mouth = points[LIP_TOP[-1]] - points[LIP_TOP[0]]
    if down[1] <= _FLAT_PX or mouth[0] <= _FLAT_PX / 2 or abs(mouth[1]) > abs(mouth[0]):
        raise BadInput(
            "the points are not an upright face",
            field="points",
            fix="give all 468 points in MediaPipe's order, of a portrait that stands upright",
        )


def _crop(picture: Picture, points: Floats, width: int, height: int) -> tuple[float, tuple[float, float]]:
    """Scale and offset from picture to panel pixels: fills the panel, zooms to the face, never shows an edge."""
    rows, columns = picture.shape[:2]
    cover = max(width / columns, height / rows)
    face = float(np.linalg.norm(points[CHIN] - points[FOREHEAD]))
    scale = min(max(cover, FACE_HEIGHT * height / face), MAX_ZOOM * cover)
    eyes = points[[i for row in EYES_TOP + EYES_BOTTOM for i in row]].mean(axis=0)
    wanted = (width / 2 - scale * float(eyes[0]), EYE_LINE * height - scale * float(eyes[1]))
    left = min(max(wanted[0], width - scale * columns), 0.0)
    top = min(max(wanted[1], height - scale * rows), 0.0)
    return scale, (left, top)


def _resample(picture: Picture, matrix: Floats, size: tuple[int, int]) -> Picture:
    """Affine resampling; a picture much larger than its place is reduced by area first, against aliasing."""
    scale = matrix[0, 0]
    if scale < _MUCH_LARGER:
        smaller = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        factors = smaller.shape[1] / picture.shape[1], smaller.shape[0] / picture.shape[0]
        matrix = matrix.copy()
        for axis in (0, 1):
            matrix[axis, axis] /= factors[axis]
            matrix[axis, 2] += 0.5 * matrix[axis, axis] * (1 - factors[axis])
        picture = smaller
    return np.asarray(
        cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def curve_through(points: Floats, count: int) -> Floats:
    """``count`` points, evenly spaced in x, on the smooth curve y(x) through ``points``; float32 ``(count, 2)``."""
    order = np.argsort(points[:, 0], kind="stable")
    x, y = points[order, 0].astype(np.float64), points[order, 1].astype(np.float64)
    wanted = np.linspace(x[0], x[-1], count)
    dense = np.interp(wanted, x, y)
    kernel = np.hanning(max(3, count // 8 | 1) + 2)[1:-1]
    kernel /= kernel.sum()
    # Smoothing the deviation from the chord keeps both ends where they are.
    chord = np.linspace(y[0], y[-1], count)
    bend = np.convolve(np.pad(dense - chord, len(kernel) // 2, mode="reflect", reflect_type="odd"), kernel, "valid")
    return np.stack((wanted, chord + bend), axis=1).astype(np.float32)


def darkest_line(luma: Floats, guide: Floats, reach: float, *, bias: float) -> Floats:
    """Move a curve onto the dark line beside it, as lips or lashes draw one.

    The path of least darkness cost through the columns, by dynamic programming; steps between neighbours are bound.

    Args:
        luma: float32 ``(h, w)``, 0..255.
        guide: float32 ``(n, 2)``, the expected curve.
        reach: how far up and down to look, in pixels.
        bias: cost, in grey levels, of lying ``reach`` away from the guide.

    Returns:
        float32 ``(n, 2)``; equals the guide where the picture has no line.
    """
    steps = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1, dtype=np.float32)
    rows = guide[:, 1][None, :] + steps[:, None]
    columns = np.broadcast_to(guide[:, 0], rows.shape)
    seen = cv2.remap(luma, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    cost = seen - np.median(seen, axis=0) + bias * (steps[:, None] / reach) ** 2
    if float(np.mean(cost.min(axis=0))) > _FAINTEST_LINE:
        return guide
    best = _cheapest_path(cost)
    shift = np.convolve(np.pad(steps[best], 3, mode="edge"), np.hanning(9)[1:-1] / 4.0, mode="valid")
    return np.stack((guide[:, 0], guide[:, 1] + shift), axis=1).astype(np.float32)


def _cheapest_path(cost: Floats, step_cost: float = 4.0) -> NDArray[np.int64]:
    """Row index in every column of the cheapest left-to-right path that moves by at most two rows a column."""
    rows, columns = cost.shape
    total = cost[:, 0].copy()
    came = np.zeros((rows, columns), np.int64)
    for column in range(1, columns):
        choices = np.full((5, rows), np.inf, np.float32)
        for k, move in enumerate((-2, -1, 0, 1, 2)):
            source = slice(max(move, 0), rows + min(move, 0))
            target = slice(max(-move, 0), rows + min(-move, 0))
            choices[k, target] = total[source] + step_cost * abs(move)
        pick = choices.argmin(axis=0)
        came[:, column] = np.arange(rows) + pick - 2
        total = choices.min(axis=0) + cost[:, column]
    path = np.empty(columns, np.int64)
    path[-1] = int(total.argmin())
    for column in range(columns - 1, 0, -1):
        path[column - 1] = came[path[column], column]
    return path
