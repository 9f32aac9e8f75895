"""The one runner of ffmpeg: engines, captions checks and decoders start it through here and nowhere else.

The one invariant: ffmpeg is always a child in its own process group, which dies with the call that
started it, with its deadline and with its parent; ffmpeg is GPL, so it is never loaded as a library.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self

from serving.errors import BadInput, EngineFailed, ReelmeshError, TooLarge, foreign_text
from serving.media.probe import SAFE_FORMATS
from serving.media.process import (
    STDERR_TAIL_BYTES,
    command_line,
    failure_text,
    find_ffmpeg,
    kill_group,
)
from serving.protocol.tasks import MAX_SECONDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "COLOUR", "REPEATABLE", "SAFE_INPUT", "Checkpoint", "FfmpegOutput", "PixelFormat", "VideoWriter", "clip_arguments",
    "concat_clips", "concat_input", "concat_list", "decode_audio", "find_ffmpeg", "run_ffmpeg",
]  # fmt: skip

Checkpoint = Callable[[], None]
"""Raises when the work shall stop; an engine passes ``call.checkpoint``."""

PixelFormat = Literal["bgr24", "rgb24", "yuv420p"]
"""Raw frames a :class:`VideoWriter` takes."""

POLL_S: Final = 0.2
"""How often a running ffmpeg's checkpoint and time limit are looked at."""

CONCAT_FORMATS: Final = "concat,mov,mp4,m4a,3gp,3g2,mj2,png_pipe,image2"
"""What a concat list of the mesh's own may name: clips and stills."""

SAFE_INPUT: Final = (
    "-protocol_whitelist", "file,pipe",
    "-format_whitelist",
    SAFE_FORMATS,
)  # fmt: skip
"""Options before an ``-i`` that came from a client: plain media, as a playlist could name other files."""

COLOUR: Final = (
    "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv",
)  # fmt: skip
"""Tags of every picture the mesh encodes: BT.709, limited range."""

REPEATABLE: Final = (
    "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact",
)  # fmt: skip
"""Output options that keep dates and versions out of a file, so that equal inputs give equal bytes."""


@dataclass(frozen=True, slots=True)
class FfmpegOutput:
    """What a finished ffmpeg wrote: ``stdout`` whole, ``stderr`` its last 64 KiB as text."""

    stdout: bytearray
    stderr: str


async def run_ffmpeg(
    arguments: Sequence[str],
    *,
    timeout_s: float = 600.0,
    checkpoint: Checkpoint | None = None,
    loglevel: str = "error",
    stdout_limit_bytes: int = 1 << 20,
) -> FfmpegOutput:
    """Run ffmpeg to its end.

    Args:
        arguments: everything after the global options; never passed through a shell.
        timeout_s: wall-clock bound.
        checkpoint: called every :data:`POLL_S` seconds; when it raises, ffmpeg is killed.
        loglevel: ffmpeg's; ``info`` where a filter prints its result to stderr.
        stdout_limit_bytes: bound on what ffmpeg may write to its standard output.

    Raises:
        EngineFailed: ffmpeg exits non-zero (the end of its stderr is in the message) or takes too long.
        TooLarge: more output than the bound.
    """
    process = await asyncio.create_subprocess_exec(
        *command_line(arguments, loglevel=loglevel),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    work = asyncio.ensure_future(_collect(process, stdout_limit_bytes))
    started = time.monotonic()
    try:
        while not (await asyncio.wait({work}, timeout=POLL_S))[0]:
            if checkpoint is not None:
                checkpoint()
            if time.monotonic() - started > timeout_s:
                raise EngineFailed(f"ffmpeg did not finish within {timeout_s:g} s")
        output = work.result()
    finally:
        kill_group(process.pid, process.returncode)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await reaped(process)
    if process.returncode:
        raise EngineFailed(failure_text(process.returncode, output.stderr))
    return output


async def reaped(process: asyncio.subprocess.Process) -> int:
    """The exit code of a process that was killed, or has ended, once nothing of it is left.

    What it wrote and nobody wants any more is read here: asyncio takes a process for ended when its pipes are at their
    end, and a full buffer stops the reading of a pipe, so that waiting alone would take for ever (Python 3.11).
    """
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(1 << 16):
            pass
    return await process.wait()


async def _collect(process: asyncio.subprocess.Process, stdout_limit_bytes: int) -> FfmpegOutput:
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 - asked for as pipes above
    tail = asyncio.create_task(_read_tail(process.stderr))
    try:
        stdout, stderr = await _read_bounded(process.stdout, stdout_limit_bytes), await tail
    finally:
        tail.cancel()
        await asyncio.gather(tail, return_exceptions=True)
    await process.wait()
    return FfmpegOutput(stdout, stderr.decode("utf-8", "replace"))


async def _read_bounded(stream: asyncio.StreamReader, limit_bytes: int) -> bytearray:
    data = bytearray()
    while chunk := await stream.read(1 << 20):
        data += chunk
        if len(data) > limit_bytes:
            raise TooLarge(f"ffmpeg wrote more than {limit_bytes} bytes", fix="send a shorter medium")
    return data


async def _read_tail(stream: asyncio.StreamReader) -> bytes:
    tail = bytearray()
    while chunk := await stream.read(STDERR_TAIL_BYTES):
        tail += chunk
        del tail[:-STDERR_TAIL_BYTES]
    return bytes(tail)


async def decode_audio(
    path: Path, rate_hz: int, *, max_s: float = MAX_SECONDS, checkpoint: Checkpoint | None = None
) -> "NDArray[np.float32]":
    """The first audio stream of any medium, as mono samples.

    Args:
        path: a local file of any format in :data:`SAFE_INPUT`.
        rate_hz: sample rate of the answer.
        max_s: longest audio accepted, in seconds.
        checkpoint: see :func:`run_ffmpeg`.

    Returns:
        float32 ``(samples,)``, range -1 to 1; channels are averaged (``rematrix_maxval``: by
        itself ffmpeg adds float channels up 3 dB too loud). Sample 0 stands at the medium's start: silence where the
        sound starts later than the picture.

    Raises:
        BadInput: the file is not media, or holds no audio.
        TooLarge: the audio is longer than ``max_s``.
    """
    import numpy as np

    arguments = [
        *SAFE_INPUT, "-i", f"file:{path}", "-map", "0:a:0", "-vn",
        "-af", f"aresample={rate_hz}:ochl=mono:rematrix_maxval=1.0:async=1:first_pts=0",
        "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1",
    ]  # fmt: skip
    try:
        output = await run_ffmpeg(arguments, checkpoint=checkpoint, stdout_limit_bytes=int(max_s * rate_hz * 4) + 4096)
    except TooLarge as error:
        raise TooLarge(f"the audio is longer than {max_s:g} s", fix="send a shorter medium") from error
    except EngineFailed as error:
        raise BadInput(
            f"no audio can be read from the file ({foreign_text(error)})",
            fix="send an audio or video file with sound",
        ) from error
    if not output.stdout:
        raise BadInput("the file holds no audio", fix="send an audio or video file with sound")
    return np.frombuffer(output.stdout, dtype="<f4").clip(-1.0, 1.0)


def clip_arguments(width: int, height: int, fps: int, pixel_format: PixelFormat, path: Path) -> list[str]:
    """The arguments that turn raw frames on stdin into a clip.

    One fixed set of parameters, without B-frames: clips of one size and rate have equal headers and no edit
    list, so the concat demuxer joins them by copy without a gap. ``ultrafast`` because the compositor encodes
    clips again: spending bits (CRF 16) is cheaper there than spending time.
    """
    to_yuv = "scale=flags=bilinear:out_color_matrix=bt709:out_range=tv,format=yuv420p"
    return [
        "-f", "rawvideo", "-pix_fmt", pixel_format, "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0",
        "-an", *(("-vf", to_yuv) if pixel_format != "yuv420p" else ()),
        "-c:v", "libx264", "-preset", "ultrafast", "-crf", "16", "-bf", "0", "-pix_fmt", "yuv420p",
        "-g", str(fps * 2), "-threads", "1", *COLOUR, *REPEATABLE,
        "-video_track_timescale", str(fps * 512), "-f", "mp4", str(path),
    ]  # fmt: skip


class VideoWriter:
    """Encodes raw frames to a silent H.264 MP4; a context manager for worker threads (every call blocks).

    ``with VideoWriter(path, 640, 720, 25) as video: video.write(frame)``. Leaving the block normally finishes
    the file; leaving it by an exception kills ffmpeg and removes the unfinished file.

    Args:
        path: file to write, any name.
        width: pixels, even.
        height: pixels, even.
        fps: frames a second.
        pixel_format: order of the bytes in a frame; ``yuv420p`` is planar BT.709 of limited range and is
            encoded as it is.
        timeout_s: bound on finishing the file after the last frame.

    Attributes:
        frames: how many frames were written so far.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: int,
        *,
        pixel_format: Literal["bgr24", "rgb24", "yuv420p"] = "bgr24",
        timeout_s: float = 60.0,
    ) -> None:
        self.path = path
        self.frames = 0
        self._shape = (height * 3 // 2, width) if pixel_format == "yuv420p" else (height, width, 3)
        self._arguments = clip_arguments(width, height, fps, pixel_format, path)
        self._timeout_s = timeout_s
        self._stderr: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start ffmpeg."""
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command_line(self._arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        return self

    def write(self, frame: "NDArray[np.uint8]") -> None:
        """Append one frame, uint8 ``(height, width, 3)``, for yuv420p ``(height * 3 / 2, width)``.

        Raises:
            ValueError: wrong shape or type.
            EngineFailed: ffmpeg ended early.
        """
        if frame.shape != self._shape or frame.dtype.name != "uint8":
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, wanted uint8 {self._shape}")
        stdin = self._running().stdin
        assert stdin is not None  # noqa: S101 - asked for as a pipe above
        try:
            stdin.write(frame.data if frame.flags.c_contiguous else frame.tobytes())
        except BrokenPipeError as error:
            raise self._ended() from error
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or throw it away."""
        process = self._running()
        try:
            if kind is None:
                self._finish(process)
        finally:
            kill_group(process.pid, process.poll())
            process.wait()
            if process.stdin is not None and not process.stdin.closed:
                _close_quietly(process.stdin)
            if self._stderr is not None:
                self._stderr.close()
            if kind is not None or process.returncode:
                self.path.unlink(missing_ok=True)

    def _finish(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None  # noqa: S101 - asked for as a pipe above
        try:
            process.stdin.close()
            process.wait(self._timeout_s)
        except BrokenPipeError as error:
            raise self._ended() from error
        except subprocess.TimeoutExpired as error:
            raise EngineFailed(f"ffmpeg did not finish within {self._timeout_s:g} s") from error
        if process.returncode:
            raise self._ended()

    def _ended(self) -> ReelmeshError:
        process = self._running()
        kill_group(process.pid, process.poll())
        code = process.wait()
        said = ""
        if self._stderr is not None:
            self._stderr.seek(0)
            said = self._stderr.read(STDERR_TAIL_BYTES).decode("utf-8", "replace")
        return EngineFailed(failure_text(code, said))

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("VideoWriter is a context manager: use it in a with statement")
        return self._process


def _close_quietly(stream: IO[Any]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return


def concat_list(clips: Sequence[Path]) -> str:
    """The concat demuxer's list of ``clips``; quotes are escaped as its documentation asks."""
    lines = ["ffconcat version 1.0"]
    lines += ["file 'file:{}'".format(str(clip).replace("'", "'\\''")) for clip in clips]
    return "\n".join(lines) + "\n"


def concat_input(list_file: Path) -> list[str]:
    """Arguments that read clips of equal parameters (from :class:`VideoWriter`) as one input."""
    allowed = ["-protocol_whitelist", "file,pipe", "-format_whitelist", CONCAT_FORMATS]
    return ["-f", "concat", "-safe", "0", *allowed, "-i", str(list_file)]


async def concat_clips(clips: Sequence[Path], target: Path, *, checkpoint: Checkpoint | None = None) -> None:
    """Join clips written by :class:`VideoWriter` (one size, one rate) into ``target`` by stream copy.

    Raises:
        EngineFailed: a clip cannot be read or differs from the first.
    """
    list_file = target.with_name(f"{target.name}.txt")
    list_file.write_text(concat_list(clips), encoding="utf-8")
    try:
        await run_ffmpeg(
            [*concat_input(list_file), "-c", "copy", *REPEATABLE, "-f", "mp4", str(target)],
            checkpoint=checkpoint,
        )
    finally:
        list_file.unlink(missing_ok=True)
