"""The geometry between picture, detector and face mesh; used by adapters.face_landmarks.

Sizes and angles are those of MediaPipe's face_detection_front_detection_to_roi and face_landmark graphs (Apache-2.0).
The one invariant: everything here is pure, and coordinates are pixels of the picture unless the name says otherwise.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CROP_SCALE: Final = 1.5
"""Side of the mesh's crop in units of the longer side of the face's box."""
OVERLAP: Final = 0.3
"""Detections overlapping by more than this (intersection over union) are one face."""
RIGHT_EYE, LEFT_EYE = 33, 263
"""Mesh points at the outer corners of the eyes, by the person's own sides."""
BOX, KEYPOINT_RIGHT_EYE, KEYPOINT_LEFT_EYE = slice(0, 4), slice(4, 6), slice(6, 8)
"""Columns of a detection."""


class Tile(NamedTuple):
    """A square part of the picture's plane that the detector looks at; may reach beyond the picture."""

    left: float
    top: float
    side: float


class Crop(NamedTuple):
    """A turned square round one face; ``angle`` in radians, clockwise on the screen."""

    x: float
    y: float
    side: float
    angle: float

    def affine(self, size: int) -> tuple[float, float, float, float, float, float]:
        """Pillow's AFFINE data that cuts this crop out as ``size`` by ``size`` pixels."""
        cos, sin = math.cos(self.angle) * self.side, math.sin(self.angle) * self.side
        return (
            cos / size, -sin / size, self.x - (cos - sin) / 2,
            sin / size, cos / size, self.y - (sin + cos) / 2,
        )  # fmt: skip

    def to_picture(self, points: Floats) -> Floats:
        """Points relative to the crop (0 to 1), float32 ``(n, 2)``, as pixels of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]], np.float32)
        moved: Floats = ((points - 0.5) @ turn * self.side + np.array([self.x, self.y])).astype(np.float32)
        return moved


def whole(width: int, height: int) -> Tile:
    """The smallest centred square round the whole picture."""
    side = max(width, height)
    return Tile((width - side) / 2, (height - side) / 2, side)


def close_ups(width: int, height: int) -> list[Tile]:
    """Squares of half the picture's longer side, overlapping by half, that cover the picture: for small faces."""
    side = max(width, height) / 2
    lefts, tops = (_starts(length, side) for length in (width, height))
    return [Tile(left, top, side) for top in tops for left in lefts]


def around(face: Floats) -> Tile:
    """The square in which a detected face has the size that the detector knows best, two fifths of the side."""
    x, y, width, height = (float(value) for value in face[BOX])
    side = max(width, height) * 2.5
    return Tile(x - side / 2, y - side / 2, side)


def _starts(length: int, side: float) -> list[float]:
    if length <= side:
        return [(length - side) / 2]
    count = math.ceil((length - side) / (side / 2)) + 1
    return [float(start) for start in np.linspace(0, length - side, count)]


def in_picture(detections: Floats, tile: Tile) -> Floats:
    """Detections relative to a tile (0 to 1), float32 ``(n, 16)``, as pixels of the picture."""
    moved: Floats = detections * np.float32(tile.side)
    moved[:, [0, *range(4, 16, 2)]] += tile.left
    moved[:, [1, *range(5, 16, 2)]] += tile.top
    return moved


def prominent_face(detections: Floats, scores: Floats, threshold: float) -> tuple[Floats, float] | None:
    """The largest face: the mean of the detections that overlap its best one, weighted by score, and that score.

    Args:
        detections: float32 ``(n, 16)``.
        scores: float32 ``(n,)``, 0 to 1.
        threshold: scores below do not count.

    Returns:
        float32 ``(16,)`` and the score, or None where there is no face.
    """
    good = scores >= threshold
    if not good.any():
        return None
    detections, scores = detections[good], scores[good]
    best = int(np.argmax(detections[:, 2] * detections[:, 3] * scores**2))
    same = overlaps(detections[:, BOX], detections[best, BOX]) > OVERLAP
    mean: Floats = np.average(detections[same], axis=0, weights=scores[same]).astype(np.float32)
    return mean, float(scores[same].max())


def overlaps(boxes: Floats, box: Floats) -> Floats:
    """Intersection over union of boxes ``(n, 4)`` with one box; columns are centre x, centre y, width, height."""
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    common = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(boxes[:, 2:], axis=1) + np.prod(box[2:]) - common
    shares: Floats = common / np.maximum(union, np.float32(1e-9))
    return shares


def crop_of_detection(face: Floats) -> Crop:
    """The mesh's crop round a detected face: level eyes, 1.5 times its longer side."""
    x, y, width, height = (float(value) for value in face[BOX])
    return Crop(x, y, CROP_SCALE * max(width, height), _level(face[KEYPOINT_RIGHT_EYE], face[KEYPOINT_LEFT_EYE]))


def crop_of_points(points: Floats) -> Crop:
    """The crop round a face whose mesh is known, float32 ``(468, 2)``: closer than the detector's."""
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = (float(value) for value in (low + high) / 2)
    return Crop(x, y, CROP_SCALE * float((high - low).max()), _level(points[RIGHT_EYE], points[LEFT_EYE]))


def _level(right_eye: Floats, left_eye: Floats) -> float:
    across, down = (float(value) for value in left_eye - right_eye)
    return math.atan2(down, across)
