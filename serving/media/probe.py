"""What a media file holds, read with PyAV; used by the compositor, verification and jobs.

The one invariant: probing only reads headers and packet tables, never decodes, so it takes milliseconds.
"""

import asyncio
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final, Literal

from serving.errors import BadInput, foreign_text

SAFE_FORMATS: Final = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dv,eac3,flac,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,ogg,wav,w64,wv"
)
"""Demuxers that may read what a client sent: plain media, as a playlist could name other files."""

_MAX_BOXES: Final = 1000
_BOX_HEADER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream; fields that do not fit its kind are zero or empty."""

    kind: Literal["video", "audio", "subtitle", "other"]
    codec: str
    language: str = ""
    duration_s: float = 0.0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    pixel_format: str = ""
    sample_rate_hz: int = 0
    channels: int = 0


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A file: container names as ffmpeg gives them, length, whether it plays before its end arrives."""

    container: str
    duration_s: float
    faststart: bool
    streams: tuple[StreamInfo, ...]
    size_bytes: int

    def first(self, kind: str) -> StreamInfo | None:
        """The first stream of a kind."""
        return next((stream for stream in self.streams if stream.kind == kind), None)


async def probe(path: Path) -> MediaInfo:
    """Look at a file in a thread; see :func:`probe_file`."""
    return await asyncio.to_thread(probe_file, path)


def probe_file(path: Path) -> MediaInfo:
    """Look at a file.

    Raises:
        BadInput: it is not media that ffmpeg's libraries can open.
    """
    import av

    try:
        with av.open(
            str(path), metadata_errors="replace", container_options={"format_whitelist": SAFE_FORMATS}
        ) as medium:
            duration_s = float(medium.duration or 0) / 1_000_000
            streams = tuple(_stream(stream, duration_s) for stream in medium.streams)
            container = str(medium.format.name)
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the file is not audio or video that can be read ({foreign_text(error)})",
            fix="send a common audio or video file, for example MP4, MOV, MKV, WAV or MP3",
        ) from error
    duration_s = duration_s or max((stream.duration_s for stream in streams), default=0.0)
    return MediaInfo(container, duration_s, is_faststart(path), streams, path.stat().st_size)


def _stream(stream: object, container_s: float) -> StreamInfo:
    """One PyAV stream; untyped because PyAV's stubs do not tell its kinds apart."""
    kind = str(getattr(stream, "type", "other"))
    context = getattr(stream, "codec_context", None)
    base = getattr(stream, "time_base", None) or Fraction(0)
    duration_s = float((getattr(stream, "duration", None) or 0) * base) or container_s
    codec = str(getattr(context, "name", "") or "")
    language = str(getattr(stream, "language", "") or "")
    if kind == "video" and not _is_cover(stream):
        return StreamInfo(
            "video",
            codec,
            language,
            duration_s,
            width=int(getattr(context, "width", 0)),
            height=int(getattr(context, "height", 0)),
            fps=float(getattr(stream, "average_rate", None) or 0),
            frames=int(getattr(stream, "frames", 0)),
            pixel_format=str(getattr(context, "pix_fmt", "") or ""),
        )
    if kind == "audio":
        return StreamInfo(
            "audio",
            codec,
            language,
            duration_s,
            sample_rate_hz=int(getattr(context, "sample_rate", 0)),
            channels=int(getattr(context, "channels", 0)),
        )
    return StreamInfo("subtitle" if kind == "subtitle" else "other", codec, language, duration_s)


def _is_cover(stream: object) -> bool:
    """Whether a picture stream is an audio file's cover, which is no video."""
    import av

    disposition = getattr(stream, "disposition", av.stream.Disposition(0))
    return bool(disposition & av.stream.Disposition.attached_pic)


def is_faststart(path: Path) -> bool:
    """Whether an MP4's index (``moov``) stands before its media (``mdat``); False for other files."""
    with path.open("rb") as stream:
        return _top_level_order(stream).startswith("moov")


def _top_level_order(stream: BinaryIO) -> str:
    """Names of the boxes ``moov`` and ``mdat`` in file order, joined; reads box headers only."""
    order = ""
    for _ in range(_MAX_BOXES):
        header = stream.read(_BOX_HEADER_BYTES)
        if len(header) < _BOX_HEADER_BYTES:
            break
        size, name = struct.unpack(">I4s", header)
        skipped = _BOX_HEADER_BYTES
        if size == 1:
            size, skipped = struct.unpack(">Q", stream.read(8).rjust(8, b"\0"))[0], 16
        if name in (b"moov", b"mdat"):
            order += name.decode("ascii")
        if size < skipped:
            break
        stream.seek(size - skipped, 1)
    return order
