"""Frames come out of clips in the size and at the times asked for, and no more of them than allowed."""

from pathlib import Path

import numpy as np
import pytest

from serving.errors import BadInput, TooLarge
from serving.media.ffmpeg import VideoWriter
from serving.media.frames import frame_at, read_frames, spread


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 160x96, each of one grey: 0, 20, ... 180."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 160, 96, 25) as video:
        for number in range(10):
            video.write(np.full((96, 160, 3), 20 * number, np.uint8))
    return path


async def test_a_clip_is_read_whole_at_a_rate_and_size(clip: Path) -> None:
    frames = await read_frames(clip, 25, 64, 64, most=10, field="driving")
    assert frames.shape == (10, 64, 64, 3)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - np.arange(0, 200, 20)).max() < 3
    halved = await read_frames(clip, 12.5, 64, 64, most=10, field="driving")
    assert len(halved) == 5


async def test_more_frames_than_allowed_are_refused(clip: Path) -> None:
    with pytest.raises(TooLarge, match=r"longer than 0\.36 s") as refused:
        await read_frames(clip, 25, 64, 64, most=9, field="driving")
    assert refused.value.field == "driving"


async def test_a_frame_is_the_one_shown_at_its_time(clip: Path) -> None:
    frame = await frame_at(clip, 0.21, most_px=4096, field="media")
    assert frame.shape == (96, 160, 3)
    assert abs(frame.mean() - 120) < 22


@pytest.mark.parametrize(("most_px", "shape"), [(80, (48, 80, 3)), (160, (96, 160, 3))])
async def test_a_frame_is_made_smaller_never_larger(clip: Path, most_px: int, shape: tuple) -> None:
    assert (await frame_at(clip, 0.1, most_px=most_px, field="media")).shape == shape


async def test_there_is_no_frame_after_the_end(clip: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing at 9\.00 s"):
        await frame_at(clip, 9.0, most_px=160, field="media")


async def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(b"no clip")
    with pytest.raises(BadInput, match="no frames can be read"):
        await read_frames(path, 25, 64, 64, most=9, field="driving")


def test_times_are_spread_evenly_off_the_ends() -> None:
    assert list(spread(4.0, 4)) == [0.5, 1.5, 2.5, 3.5]
