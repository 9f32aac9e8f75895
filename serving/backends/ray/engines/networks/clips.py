"""A clip that is encoded while a network draws it, so that memory does not grow with its length; used by engines.

The one invariant: the file exists as long as the object does, and what was half written does not outlive an error.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.media.ffmpeg import VideoWriter

MEDIA_TYPE: Final = "video/mp4"


class Clip:
    """A finished clip in a folder of its own, which goes with it.

    Attributes:
        path: the MP4.
        frames: how many it has.
        fps: frames a second.
    """

    def __init__(self, path: Path, frames: int, fps: int) -> None:
        self.path = path
        self.frames = frames
        self.fps = fps
        weakref.finalize(self, shutil.rmtree, path.parent, ignore_errors=True)

    def move_to(self, folder: Path) -> Path:
        """Take the file into another folder; its own goes."""
        target = folder / self.path.name
        shutil.move(self.path, target)
        shutil.rmtree(self.path.parent, ignore_errors=True)
        return target


def encode(frames: Iterable[NDArray[np.uint8]], width: int, height: int, fps: int, scratch: Path) -> Clip:
    """Write frames as they come, uint8 ``(height, width, 3)``, red-green-blue.

    Raises:
        EngineFailed: ffmpeg does.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="clip-"))
    try:
        with VideoWriter(folder / "clip.mp4", width, height, fps, pixel_format="rgb24") as video:
            for frame in frames:
                video.write(frame)
            written = video.frames
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Clip(folder / "clip.mp4", written, fps)
