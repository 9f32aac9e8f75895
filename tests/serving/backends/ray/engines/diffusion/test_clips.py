"""What all pipelines of clips share: frames asked for and made, and the picture brought to motion."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.backends.ray.engines.diffusion.clips import frames_asked, frames_made
from serving.backends.ray.engines.diffusion.ltx import LtxEngine, LtxPictureEngine
from serving.errors import BadInput
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

PICTURE = ArtifactRef(sha256="0" * 64, size_bytes=1)


@pytest.mark.parametrize(
    ("duration_s", "fps", "frames"), [(2.0, 8, 16), (0.01, 8, 1), (1.0, 25, 25), (0.49, 24, 12)], ids=str
)
def test_a_clip_has_the_frames_of_its_length_and_one_at_least(duration_s: float, fps: int, frames: int) -> None:
    assert frames_asked(duration_s, fps) == frames


@pytest.mark.parametrize(
    ("asked", "stride", "made"), [(1, 4, 1), (2, 4, 5), (49, 4, 49), (50, 4, 53), (16, 8, 17), (17, 8, 17)], ids=str
)
def test_the_network_makes_as_few_frames_as_cover_the_clip(asked: int, stride: int, made: int) -> None:
    assert frames_made(asked, stride) == made
    assert (made - 1) % stride == 0


def test_the_task_follows_from_whether_there_is_a_picture() -> None:
    assert LtxEngine.request_type is TextToVideoRequest
    assert LtxPictureEngine.request_type is ImageToVideoRequest


def test_a_picture_is_cut_to_the_clips_shape_around_its_middle(tmp_path: Path) -> None:
    engine = object.__new__(LtxPictureEngine)
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = (200, 40, 40)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    request = ImageToVideoRequest(image=PICTURE, duration_s=1, width=32, height=32)
    found = np.asarray(engine.pictures(request, {"image": tmp_path / "wide.png"})["image"])
    assert found.shape == (32, 32, 3)
    assert np.abs(found[:, 4:-4].astype(int) - (200, 40, 40)).max() <= 1


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    request = ImageToVideoRequest(image=PICTURE, duration_s=1, width=32, height=32)
    with pytest.raises(BadInput, match="image: this is not a picture"):
        object.__new__(LtxPictureEngine).pictures(request, {"image": tmp_path / "notes.txt"})


def test_a_model_that_warms_up_sees_a_grey_picture() -> None:
    request = ImageToVideoRequest(image=PICTURE, duration_s=1, width=48, height=32)
    found = object.__new__(LtxPictureEngine).pictures(request, {})["image"]
    assert (found.size, found.getextrema()) == ((48, 32), ((128, 128),) * 3)
