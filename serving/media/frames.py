"""Frames of a clip as arrays: all of them at a rate and size, or some spread over it; used by engines.

The one invariant: decoding happens in ffmpeg's own process, and no more bytes come out of it than were asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.errors import BadInput, EngineFailed, TooLarge, foreign_text
from serving.media.ffmpeg import SAFE_INPUT, Checkpoint, run_ffmpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIX: Final = "send a common video file, for example MP4, MOV, MKV or WebM"
_SLACK_BYTES: Final = 4096


async def read_frames(
    path: Path, fps: float, width: int, height: int, *, most: int, field: str, checkpoint: Checkpoint | None = None
) -> "NDArray[np.uint8]":
    """A whole clip, scaled to fill a size and cut to it in the middle.

    Args:
        path: a local file.
        fps: frames a second of the answer; frames are repeated or left out.
        width: pixels.
        height: pixels.
        most: frames accepted.
        field: of the request, for messages.
        checkpoint: see :func:`serving.media.ffmpeg.run_ffmpeg`.

    Returns:
        uint8 ``(frames, height, width, 3)``, red-green-blue, upright as the file says.

    Raises:
        BadInput: no video can be read.
        TooLarge: more frames than ``most``.
    """
    size = width * height * 3
    fill = f"fps={fps:g},scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    try:
        raw = await _decode(path, ["-vf", fill, "-f", "rawvideo"], most * size, field, checkpoint)
    except TooLarge as error:
        raise TooLarge(
            f"the clip is longer than {most / fps:g} s", field=field, fix=f"send at most {most / fps:g} s of it"
        ) from error
    return _shaped(raw, width, height, field)


async def frame_at(
    path: Path, time_s: float, *, most_px: int, field: str, checkpoint: Checkpoint | None = None
) -> "NDArray[np.uint8]":
    """The frame shown at a time, its longer side at most ``most_px``: uint8 ``(height, width, 3)``, red-green-blue.

    Raises:
        BadInput: none can be read there.
    """
    import io

    import numpy as np
    from PIL import Image

    fit = f"scale='if(gt(a,1),min(iw,{most_px}),-2)':'if(gt(a,1),-2,min(ih,{most_px}))'"
    output = ["-vf", fit, "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe"]
    ppm = await _decode(path, output, most_px * most_px * 3, field, checkpoint, start_s=time_s)
    if not ppm:
        raise BadInput(f"the clip shows nothing at {time_s:.2f} s", field=field, fix=FIX)
    with Image.open(io.BytesIO(ppm), formats=["PPM"]) as picture:
        return np.asarray(picture.convert("RGB"))


def spread(duration_s: float, count: int) -> Sequence[float]:
    """Times in the middles of ``count`` equal parts of a clip, so that neither its first nor its last frame is one."""
    return [duration_s * (index + 0.5) / count for index in range(count)]


async def _decode(
    path: Path,
    output: Sequence[str],
    most_bytes: int,
    field: str,
    checkpoint: Checkpoint | None,
    *,
    start_s: float = 0.0,
) -> bytearray:
    arguments = [
        "-ss", f"{start_s:.3f}", *SAFE_INPUT, "-i", f"file:{path}", "-map", "0:v:0", "-an", *output,
        "-pix_fmt", "rgb24", "pipe:1",
    ]  # fmt: skip
    try:
        done = await run_ffmpeg(arguments, checkpoint=checkpoint, stdout_limit_bytes=most_bytes + _SLACK_BYTES)
    except EngineFailed as error:
        raise BadInput(f"no frames can be read from the file ({foreign_text(error)})", field=field, fix=FIX) from error
    return done.stdout


def _shaped(raw: bytearray, width: int, height: int, field: str) -> "NDArray[np.uint8]":
    import numpy as np

    count = len(raw) // (width * height * 3)
    if not count:
        raise BadInput("the clip holds no frame", field=field, fix=FIX)
    return np.frombuffer(raw, np.uint8, count * width * height * 3).reshape(count, height, width, 3)
