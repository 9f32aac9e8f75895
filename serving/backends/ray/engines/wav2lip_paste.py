"""Cutting a face out of a frame for Wav2Lip and blending the drawn mouth back in; used by engine ``wav2lip``.

The one invariant: pixels outside the mask are the frame's own, untouched, and the mask is 0 at the box's edges, so no
seam shows.
"""

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]

CHIN_ROOM: Final = 0.08
"""Room below the chin, in face heights: a jaw that opens must fit into the box (the paper's code pads 10 pixels)."""

FEATHER: Final = 0.04
"""Standard deviation of the mask's blur, in face widths."""

_JAW_DROP: Final = 0.06
"""How far below the chin the mask reaches, in face heights."""

_LOWER_FACE: Final = (
    132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 327, 2, 98,
)  # fmt: skip
"""MediaPipe's face mesh: from one earlobe along the jaw to the other, and back below the nose."""


class Box(NamedTuple):
    """A part of a frame, whole pixels; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int


def face_box(points: Floats, width: int, height: int) -> Box:
    """The box round a face mesh, with room below the chin, cut at the frame's edges.

    Args:
        points: float32 (468, 2), pixels of the frame, some of them inside it.
        width: of the frame.
        height: of the frame.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    bottom = high[1] + CHIN_ROOM * (high[1] - low[1])
    left, top = (max(0, int(np.floor(value))) for value in low)
    return Box(left, top, min(width, int(np.ceil(high[0]))), min(height, int(np.ceil(bottom))))


def network_input(frame: Picture, box: Box, size: int) -> Floats:
    """The face as the network sees it.

    Returns:
        float32 (6, size, size), 0 to 1, blue-green-red: with its lower half black, then whole.
    """
    face = cv2.resize(frame[box.top : box.bottom, box.left : box.right], (size, size), interpolation=cv2.INTER_AREA)
    whole = face[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    masked = whole.copy()
    masked[:, size // 2 :] = 0
    return np.concatenate((masked, whole))


def mouth_mask(points: Floats, box: Box) -> Floats:
    """How much of the drawn face each pixel of the box takes: float32 (height, width, 1), 0 to 1.

    The lower face, with room for a dropped jaw, feathered, and 0 at the box's edges.
    """
    width, height = box.right - box.left, box.bottom - box.top
    face_height = float(np.ptp(points[:, 1]))
    lower = points[list(_LOWER_FACE)] - (box.left, box.top)
    dropped = lower + np.array((0, _JAW_DROP * face_height), np.float32)
    hull = cv2.convexHull(np.concatenate((lower, dropped)).round().astype(np.int32))
    hard = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(hard, hull, 1.0)
    mask = cv2.GaussianBlur(hard, (0, 0), max(1.0, FEATHER * width))
    ramp = max(2.0, 2 * FEATHER * width)
    fades = [np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / ramp) for n in (height, width)]
    return np.asarray(mask * np.outer(fades[0], fades[1]), np.float32)[:, :, None]


def paste(frame: Picture, box: Box, mask: Floats, drawn: Picture) -> Picture:
    """The frame with a drawn face blended in, at the frame's own resolution.

    Args:
        frame: uint8 (height, width, 3), red-green-blue.
        box: where the face lies.
        mask: of :func:`mouth_mask`.
        drawn: uint8 (size, size, 3), red-green-blue.

    Returns:
        A new picture of the frame's shape.
    """
    width, height = box.right - box.left, box.bottom - box.top
    face = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC)
    out = frame.copy()
    under = out[box.top : box.bottom, box.left : box.right]
    blended = under + mask * (face.astype(np.float32) - under)
    out[box.top : box.bottom, box.left : box.right] = np.clip(blended + 0.5, 0, 255).astype(np.uint8)
    return out
