"""Pictures and clips as they leave a pipeline: bytes, PNG, MP4, and never values that are no numbers."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from serving.backends.ray.engines.diffusion.outputs import pixels, write_clip, write_png
from serving.errors import EngineFailed


def test_pixels_are_rounded_and_clipped() -> None:
    assert pixels([-0.1, 0.0, 0.499, 0.5, 1.0, 1.2]).tolist() == [0, 0, 127, 128, 255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_fail_with_their_count(bad: float) -> None:
    with pytest.raises(EngineFailed, match=r"made 1 of 4 values that are no numbers: try another seed"):
        pixels([0.0, bad, 0.5, 1.0])


def test_a_png_holds_the_pixels_and_is_the_same_every_time(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    first, again = write_png(picture, tmp_path / "a.png"), write_png(picture, tmp_path / "b.png")
    assert first.read_bytes() == again.read_bytes()
    assert (np.asarray(Image.open(first)) == picture).all()


def test_a_clip_has_the_frames_and_the_rate(tmp_path: Path) -> None:
    frames = np.full((5, 48, 64, 3), 128, np.uint8)
    assert write_clip(frames, tmp_path / "clip.mp4", 8) == 5
    with av.open(tmp_path / "clip.mp4") as clip:
        stream = clip.streams.video[0]
        assert (stream.frames, stream.width, stream.height, stream.average_rate) == (5, 64, 48, 8)


def test_a_clip_without_frames_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no frame"):
        write_clip(np.zeros((0, 48, 64, 3), np.uint8), tmp_path / "clip.mp4", 8)
    assert not (tmp_path / "clip.mp4").exists()
