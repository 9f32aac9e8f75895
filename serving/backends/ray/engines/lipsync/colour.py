"""Colour as the puppet keeps it: BT.709 Y'CbCr, limited range, as the encoder wants it; used by mouth, eyes and puppet.

The one invariant: with OFFSET taken off, scaling all three numbers darkens or lightens a colour and keeps its
hue.
"""

from typing import Final

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, Picture

OFFSET: Final = np.array((16.0, 128.0, 128.0), np.float32)

# ITU-R BT.709-6, 8 bit: Y' in 16..235, Cb and Cr in 16..240.
_MATRIX: Final = np.array(
    (
        (0.2126 * 219 / 255, 0.7152 * 219 / 255, 0.0722 * 219 / 255),
        (-0.2126 / 1.8556 * 224 / 255, -0.7152 / 1.8556 * 224 / 255, 0.5 * 224 / 255),
        (0.5 * 224 / 255, -0.7152 / 1.5748 * 224 / 255, -0.0722 / 1.5748 * 224 / 255),
    ),
    np.float32,
)


def from_rgb(picture: Picture) -> Picture:
    """RGB to Y'CbCr, both uint8 ``(h, w, 3)``."""
    matrix = np.concatenate((_MATRIX, OFFSET[:, None]), axis=1)
    return np.asarray(cv2.transform(picture, matrix), np.uint8)


def paint(red: float, green: float, blue: float) -> Floats:
    """One RGB colour (0..255) as Y'CbCr without OFFSET: float32 ``(3,)``."""
    return np.asarray(_MATRIX @ np.array((red, green, blue), np.float32), np.float32)
