"""A portrait that can be drawn with any mouth, gaze, lid and pose: one frame at a time; used by engine.

The one invariant: a frame depends on its own row of the tracks alone, never on the frame drawn before.
"""

from typing import Any

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, Picture
from serving.backends.ray.engines.lipsync.colour import from_rgb
from serving.backends.ray.engines.lipsync.eyes import Eye
from serving.backends.ray.engines.lipsync.face import Face
from serving.backends.ray.engines.lipsync.motion import Motion
from serving.backends.ray.engines.lipsync.mouth import Mouth
from serving.backends.ray.engines.lipsync.warp import HeadWarp

_NO_SECOND_MAP: Any = None  # the stubs want an array, but cv2 reads an empty one as coordinates and hangs


class Puppet:
    """Draws frames of one placed portrait; not to be used by two threads at once.

    Args:
        face: from face.place_face.
    """

    def __init__(self, face: Face) -> None:
        canvas = from_rgb(face.canvas)
        self.size = face.panel
        self.mouth = Mouth(face, canvas)
        self.eyes = (Eye(face, canvas, 0), Eye(face, canvas, 1))
        self._warp = HeadWarp(face)
        self._luma = np.ascontiguousarray(canvas[:, :, 0])
        self._chroma = _halved(canvas)

    def frame(self, index: int, track: Floats, motion: Motion) -> Picture:
        """One frame as planar yuv420p, BT.709 limited range: uint8 ``(height * 3 / 2, width)``.

        Args:
            index: row of ``track`` and ``motion``.
            track: float32 ``(frames, 8)``, see mouth_track.
            motion: see motion.
        """
        self._put(self.mouth.region, self.mouth.draw(track[index], float(motion.smile[index])))
        for eye in self.eyes:
            look = (float(v[index]) for v in (motion.blink, motion.gaze_x, motion.gaze_y))
            self._put(eye.region, eye.draw(*look))
        luma_map, chroma_map = self._warp.maps(motion, index)
        width, height = self.size
        out = np.empty((height * 3 // 2, width), np.uint8)
        out[:height] = cv2.remap(
            self._luma, luma_map, _NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        chroma = cv2.remap(
            self._chroma, chroma_map, _NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        out[height:] = np.moveaxis(chroma, 2, 0).reshape(-1, width)
        return out

    def _put(self, region: tuple[int, int, int, int], picture: Picture) -> None:
        x0, y0, x1, y1 = region
        self._luma[y0:y1, x0:x1] = picture[:, :, 0]
        self._chroma[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] = _halved(picture)


def _halved(picture: Picture) -> Picture:
    """Cb and Cr at half size, uint8 ``(h / 2, w / 2, 2)``."""
    half = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA)[:, :, 1:], np.uint8).copy()
