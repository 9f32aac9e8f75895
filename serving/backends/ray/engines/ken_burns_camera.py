"""Where the camera looks while a still picture moves: pure functions of the motion and of time.

The one invariant: the view never leaves the picture, and moves by fractions of a pixel from frame to frame.
"""

import math
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Motion = Literal["zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up", "pan_down"]

ZOOM: Final = 1.16
"""Nearest view; 16 % over some seconds is seen as calm, more as a lurch."""

PAN_ZOOM: Final = 1.14
_EASED: Final = 0.6
"""Share of the motion that eases in and out; the rest is steady, so that a crossfade never meets a standstill."""


class View(NamedTuple):
    """What is seen: ``zoom`` of 1 or more, and where in the remaining room, 0 (left, top) to 1 (right, bottom)."""

    zoom: float
    x: float
    y: float


def eased(progress: float) -> float:
    """Progress from 0 to 1 with a soft start and end."""
    soft = 0.5 - 0.5 * math.cos(math.pi * progress)
    return _EASED * soft + (1 - _EASED) * progress


def view(motion: Motion, progress: float, seed: int) -> View:
    """The view at ``progress`` (0 to 1) of a motion; the seed chooses to which side a zoom leans."""
    at = eased(min(1.0, max(0.0, progress)))
    lean_x = 0.5 + 0.16 * (seed % 3 - 1)
    lean_y = 0.5 - 0.10 * (seed // 3 % 2)
    match motion:
        case "zoom_in":
            return View(1 + (ZOOM - 1) * at, lean_x, lean_y)
        case "zoom_out":
            return View(ZOOM - (ZOOM - 1) * at, lean_x, lean_y)
        case "pan_left":
            return View(PAN_ZOOM, 1 - at, lean_y)
        case "pan_right":
            return View(PAN_ZOOM, at, lean_y)
        case "pan_up":
            return View(PAN_ZOOM, lean_x, 1 - at)
        case "pan_down":
            return View(PAN_ZOOM, lean_x, at)


def sampling(seen: View, source: tuple[int, int], target: tuple[int, int]) -> NDArray[np.float64]:
    """The 2x3 matrix from target pixels to source pixels, pixel centres at half integers; sizes are (width, height)."""
    rows = []
    for axis, place in enumerate((seen.x, seen.y)):
        span = source[axis] / seen.zoom
        step = span / target[axis]
        offset = (source[axis] - span) * place + step / 2 - 0.5
        rows.append([step if axis == 0 else 0.0, step if axis == 1 else 0.0, offset])
    return np.array(rows, np.float64)
