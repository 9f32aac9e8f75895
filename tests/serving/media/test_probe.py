"""Probing: what a file holds, and whether it plays before its end arrives."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serving.errors import BadInput
from serving.media.ffmpeg import VideoWriter, run_ffmpeg
from serving.media.probe import is_faststart, probe


def box(name: bytes, size: int = 8) -> bytes:
    return struct.pack(">I4s", size, name) + bytes(size - 8)


async def test_a_clip_is_described(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    with VideoWriter(path, 64, 48, 25) as video:
        for _ in range(30):
            video.write(np.zeros((48, 64, 3), np.uint8))
    info = await probe(path)
    stream = info.first("video")
    assert stream is not None
    assert (stream.codec, stream.pixel_format, stream.width, stream.height) == ("h264", "yuv420p", 64, 48)
    assert (stream.frames, stream.fps, info.first("audio")) == (30, 25.0, None)
    assert info.duration_s == pytest.approx(1.2, abs=0.01)
    assert not info.faststart


async def test_sound_is_described(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", np.zeros((22050, 2)), 22050)
    info = await probe(tmp_path / "tone.wav")
    stream = info.first("audio")
    assert stream is not None
    assert (stream.sample_rate_hz, stream.channels, stream.duration_s) == (22050, 2, 1.0)


async def test_an_audio_files_cover_is_no_video(tmp_path: Path) -> None:
    cover, song = tmp_path / "cover.png", tmp_path / "song.m4a"
    await run_ffmpeg(["-f", "lavfi", "-i", "color=red:size=64x64", "-frames:v", "1", "-update", "1", str(cover)])
    await run_ffmpeg(
        ["-f", "lavfi", "-i", "sine=duration=1", "-i", str(cover), "-map", "0", "-map", "1", "-c:v", "mjpeg",
         "-disposition:v", "attached_pic", str(song)]
    )  # fmt: skip
    info = await probe(song)
    assert info.first("video") is None
    assert info.first("audio") is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x00" * 4096, b"ffconcat version 1.0\nfile other.wav\n"],
    ids=["empty", "text", "zeros", "list of other files"],
)
async def test_what_is_not_media_is_bad_input(tmp_path: Path, content: bytes) -> None:
    soundfile.write(tmp_path / "other.wav", np.zeros(22050), 22050)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadInput, match="not audio or video"):
        await probe(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "fast"),
    [
        (box(b"ftyp", 16) + box(b"moov", 32) + box(b"mdat"), True),
        (box(b"ftyp", 16) + box(b"mdat", 32) + box(b"moov"), False),
        (struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8) + box(b"moov"), False),
        (struct.pack(">I4s", 0, b"moov"), True),
        (struct.pack(">I4s", 4, b"free") + box(b"moov"), False),
        (b"", False),
    ],
    ids=["moov-first", "mdat-first", "64-bit-size", "to-the-end", "bad-size", "empty"],
)
def test_faststart_is_read_from_the_order_of_boxes(tmp_path: Path, content: bytes, fast: bool) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(io.BytesIO(content).getvalue())
    assert is_faststart(path) is fast
