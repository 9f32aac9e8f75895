"""The runner of ffmpeg: what it decodes, writes, joins and how it dies."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from serving.errors import BadInput, Cancelled, EngineFailed, TooLarge
from serving.media.ffmpeg import (
    VideoWriter,
    concat_clips,
    concat_list,
    decode_audio,
    find_ffmpeg,
    run_ffmpeg,
)

ENDLESS = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=5", "-t", "60", "-f", "null", "-"]


def children() -> list[str]:
    """Command lines of the ffmpeg processes this process started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            line = (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(parent[1]) == os.getpid() and parent[0] != "Z" and "ffmpeg" in line:
            found.append(line)
    return found


def first_child(pid: int) -> int | None:
    """The ffmpeg child of a process, once it has taken over from setpriv."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    started = listed and "ffmpeg" in Path(f"/proc/{listed[0]}/cmdline").read_text().split("\0")[0]
    return int(listed[0]) if started else None


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(look: Callable[[], Any], limit_s: float) -> Any:
    end = time.monotonic() + limit_s
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    assert found, "it did not happen in time"
    return found


def write_clip(path: Path, shade: int, frames: int, fps: int = 25) -> None:
    with VideoWriter(path, 64, 48, fps) as video:
        for _ in range(frames):
            video.write(np.full((48, 64, 3), shade, np.uint8))


def shades(path: Path) -> list[float]:
    with av.open(str(path)) as medium:
        return [float(frame.to_ndarray(format="gray").mean()) for frame in medium.decode(video=0)]


def test_the_binary_is_found_and_runs() -> None:
    assert find_ffmpeg().is_file()


async def test_a_failure_tells_the_end_of_what_ffmpeg_said() -> None:
    with pytest.raises(EngineFailed, match="No such file"):
        await run_ffmpeg(["-i", "/nowhere/at/all.mp4", "-f", "null", "-"])


async def test_a_cancelled_await_kills_ffmpeg_at_once() -> None:
    task = asyncio.create_task(run_ffmpeg(ENDLESS))
    await asyncio.sleep(0.4)
    assert children()
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1
    assert not children()


async def test_a_raising_checkpoint_kills_ffmpeg_and_passes_on() -> None:
    def stop() -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        await run_ffmpeg(ENDLESS, checkpoint=stop)
    assert not children()


async def test_time_is_bounded() -> None:
    with pytest.raises(EngineFailed, match=r"within 0\.3 s"):
        await run_ffmpeg(ENDLESS, timeout_s=0.3)
    assert not children()


def test_ffmpeg_dies_with_its_parent() -> None:
    code = f"import asyncio; from serving.media.ffmpeg import run_ffmpeg; asyncio.run(run_ffmpeg({ENDLESS!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = wait_for(lambda: first_child(parent.pid), 10)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not alive(child), 2)


async def test_output_beyond_the_bound_ends_ffmpeg_although_nobody_reads_the_rest() -> None:
    endless = ["-f", "lavfi", "-i", "testsrc=size=640x360", "-f", "rawvideo", "-"]
    async with asyncio.timeout(20):
        with pytest.raises(TooLarge):
            await run_ffmpeg(endless, stdout_limit_bytes=100_000)


async def test_audio_is_decoded_to_mono_floats_at_the_rate_asked(tmp_path: Path) -> None:
    tone = np.sin(np.arange(22050) / 22050 * 2 * np.pi * 440).astype(np.float32) * 0.5
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), 22050)
    samples = await decode_audio(tmp_path / "tone.wav", 16000)
    assert samples.dtype == np.float32
    assert samples.shape == (16000,)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "content",
    [b"", b"not media at all", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"],
    ids=["empty", "text", "playlist"],
)
async def test_what_is_not_audio_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadInput):
        await decode_audio(tmp_path / "file", 16000)


async def test_sound_that_starts_after_the_picture_keeps_its_place(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    await run_ffmpeg(
        ["-f", "lavfi", "-i", "color=red:size=64x64:rate=25:duration=2", "-itsoffset", "1", "-f", "lavfi",
         "-i", "sine=duration=1", "-map", "0", "-map", "1", str(film)]
    )  # fmt: skip
    samples = await decode_audio(film, 16000)
    assert len(samples) / 16000 == pytest.approx(2.0, abs=0.05)
    assert np.abs(samples[:15000]).max() < 0.01
    assert np.abs(samples[17000:]).max() > 0.05


async def test_a_video_without_sound_is_bad_input(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 90, 3)
    with pytest.raises(BadInput):
        await decode_audio(tmp_path / "clip.mp4", 16000)


async def test_too_long_audio_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(48000), 16000)
    with pytest.raises(TooLarge, match="longer than 1 s"):
        await decode_audio(tmp_path / "long.wav", 16000, max_s=1)


def test_the_writer_keeps_every_frame_and_its_shade(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 120, 30)
    seen = shades(tmp_path / "clip")
    assert len(seen) == 30
    assert seen[0] == pytest.approx(120, abs=3)


def test_equal_frames_give_equal_files(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", 50, 10)
    write_clip(tmp_path / "b", 50, 10)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failing_block_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), VideoWriter(tmp_path / "clip", 64, 48, 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
        raise Cancelled("enough")
    assert not (tmp_path / "clip").exists()
    assert not children()


def test_a_frame_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted uint8"), VideoWriter(tmp_path / "clip", 64, 48, 25) as video:
        video.write(np.zeros((64, 48, 3), np.uint8))


def test_an_encoder_that_dies_is_engine_failed(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed), VideoWriter(tmp_path / "no" / "folder", 64, 48, 25) as video:
        for _ in range(2000):
            video.write(np.zeros((48, 64, 3), np.uint8))


async def test_clips_join_by_copy_without_losing_a_frame(tmp_path: Path) -> None:
    clips = [tmp_path / f"it's {index}" for index in range(3)]
    for index, clip in enumerate(clips):
        write_clip(clip, 40 + 80 * index, 10 + index)
    await concat_clips(clips, tmp_path / "whole.mp4")
    seen = shades(tmp_path / "whole.mp4")
    assert len(seen) == 33
    assert [round(seen[at] / 10) for at in (0, 9, 10, 20, 21, 32)] == [4, 4, 12, 12, 20, 20]
    with av.open(str(tmp_path / "whole.mp4")) as medium:
        assert float(medium.streams.video[0].duration * medium.streams.video[0].time_base) == pytest.approx(33 / 25)


def test_the_concat_list_escapes_quotes() -> None:
    assert "file 'file:it'\\''s'" in concat_list([Path("it's")])
