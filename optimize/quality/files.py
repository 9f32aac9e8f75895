"""The media of results as arrays, decoded as their users decode them; used by optimize.quality.compare.

The one invariant: nothing is scaled, mixed or cut, so that two files compare sample by sample and pixel by pixel.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimize.quality.measures import Pictures
from serving.errors import BadInput, foreign_text
from serving.media.frames import read_frames
from serving.media.probe import probe_file


def read_picture(path: Path) -> Pictures:
    """A PNG as uint8 ``(1, height, width, 3)``, red-green-blue; BadInput where there is none."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB"))[None]
    except (OSError, SyntaxError, ValueError) as error:
        raise unreadable("image", "a PNG", error) from error


def read_clip(path: Path, frames: int, fps: int) -> Pictures:
    """All frames of a clip at its own size and rate: uint8 ``(frames, height, width, 3)``, red-green-blue.

    It decodes in a thread with a loop of its own, so that callers with and without one may ask.

    Raises:
        BadInput: no video can be read.
        TooLarge: it has more than ``frames``.
    """
    video = probe_file(path).first("video")
    if video is None:
        raise BadInput("the file holds no video", field="video", fix="compare the results of a task that makes clips")
    decoded = read_frames(path, fps, video.width, video.height, most=frames, field="video")
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, decoded).result()


def read_sound(path: Path) -> tuple[NDArray[np.float64], int]:
    """A WAV as float64 ``(samples, channels)``, range -1 to 1, and its rate in Hz; BadInput where there is none."""
    import soundfile

    try:
        samples, rate_hz = soundfile.read(path, dtype="float64", always_2d=True)
    except soundfile.SoundFileError as error:
        raise unreadable("audio", "a WAV file", error) from error
    return samples, int(rate_hz)


def read_array(path: Path) -> NDArray[np.float64]:
    """An ``.npy`` file as float64; BadInput where there is none."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable("array", "an .npy file", error) from error


def unreadable(field: str, wanted: str, error: Exception) -> BadInput:
    """What a file that is not what it should be raises."""
    return BadInput(
        f"a result's file is not {wanted} that can be read ({foreign_text(error)})",
        field=field,
        fix="make the result again",
    )
