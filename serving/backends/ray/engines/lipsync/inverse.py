"""Turning a displacement field round: from "where does this go" to "where does this come from"; used by mouth.

The one invariant: for a field without folds the answer is exact at the nodes up to INTER_LINEAR's own error.
"""

from typing import Final

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats

ROUNDS: Final = 5
LONGEST_STEP: Final = 3.0
"""Nodes that one round may move; keeps Newton's method from leaving a steep place."""


def inverse(forward: Floats) -> Floats:
    """The displacement to take back at every node: d with d(q) = forward(q - d(q)).

    Newton's method on all nodes at once. A plain fixed-point iteration diverges at the corners of a mouth, where lips
    are drawn inwards and down at a time.

    Args:
        forward: float32 ``(2, rows, columns)``, x and y displacement in nodes.

    Returns:
        float32 ``(2, rows, columns)``.
    """
    _, rows, columns = forward.shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    shift = np.ascontiguousarray(forward.transpose(1, 2, 0))
    slopes = np.stack([np.gradient(forward[part], axis=axis) for part in (0, 1) for axis in (1, 0)], axis=-1)
    slopes = slopes.astype(np.float32)
    px, py = x - forward[0], y - forward[1]
    for _ in range(ROUNDS):
        moved, slope = _at(shift, px, py), _at(slopes, px, py)
        miss_x, miss_y = px + moved[..., 0] - x, py + moved[..., 1] - y
        xx, xy, yx, yy = 1 + slope[..., 0], slope[..., 1], slope[..., 2], 1 + slope[..., 3]
        determinant = np.maximum(xx * yy - xy * yx, np.float32(0.15))
        px -= np.clip((yy * miss_x - xy * miss_y) / determinant, -LONGEST_STEP, LONGEST_STEP)
        py -= np.clip((xx * miss_y - yx * miss_x) / determinant, -LONGEST_STEP, LONGEST_STEP)
    return np.stack((x - px, y - py)).astype(np.float32)


def _at(planes: Floats, x: Floats, y: Floats) -> Floats:
    return np.asarray(cv2.remap(planes, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
