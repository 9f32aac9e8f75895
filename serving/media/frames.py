"""Frames of a clip as arrays: all of them at a rate and size, or some spread over it; used by engines that look at clips.

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
        raw = await _decode(path, (), fill, most * size, field, checkpoint)
    except TooLarge as error:
        raise TooLarge(
            f"the clip is longer than {most / fps:g} s", field=field, fix=f"send at most {most / fps:g} s of it"
        ) from error
    return _shaped(raw, width, height, field)


async def frame_at(
    path: Path, time_s: float, width: int, height: int, *, field: str, checkpoint: Checkpoint | None = None
) -> "NDArray[np.uint8]":
    """The frame shown at a time, scaled to a size: uint8 ``(height, width, 3)``, red-green-blue.

    Raises:
        BadInput: none can be read there.
    """
    raw = await _decode(
        path, ("-ss", f"{time_s:.3f}"), f"scale={width}:{height}", width * height * 3, field, checkpoint, frames=1
    )
    picture: NDArray[np.uint8] = _shaped(raw, width, height, field)[0]
    return picture


def spread(duration_s: float, count: int) -> Sequence[float]:
    """Times in the middles of ``count`` equal parts of a clip, so that neither its first nor its last frame is one."""
    return [duration_s * (index + 0.5) / count for index in range(count)]


async def _decode(
    path: Path,
    before: Sequence[str],
    filters: str,
    most_bytes: int,
    field: str,
    checkpoint: Checkpoint | None,
    frames: int | None = None,
) -> bytearray:
    arguments = [
        *before, *SAFE_INPUT, "-i", f"file:{path}", "-map", "0:v:0", "-an", "-vf", filters,
        *(("-frames:v", str(frames)) if frames else ()),
        "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1",
    ]  # fmt: skip
    try:
        output = await run_ffmpeg(arguments, checkpoint=checkpoint, stdout_limit_bytes=most_bytes + _SLACK_BYTES)
    except EngineFailed as error:
        raise BadInput(f"no frames can be read from the file ({foreign_text(error)})", field=field, fix=FIX) from error
    return output.stdout


def _shaped(raw: bytearray, width: int, height: int, field: str) -> "NDArray[np.uint8]":
    import numpy as np

    count = len(raw) // (width * height * 3)
    if not count:
        raise BadInput("the clip holds no frame there", field=field, fix=FIX)
    return np.frombuffer(raw, np.uint8, count * width * height * 3).reshape(count, height, width, 3)
