from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.backends.ray.engines.lipsync import face as mesh
from serving.backends.ray.engines.lipsync.face import Face, canvas_size, darkest_line, place_face, read_portrait
from serving.errors import BadInput

from .conftest import points_of, portrait_of


def placed(width: int, height: int, points: np.ndarray | None = None) -> Face:
    picture = read_portrait(portrait_of("asha"), "asha.png")
    return place_face(picture, points_of("asha") if points is None else points, width, height)


@pytest.mark.parametrize(("width", "height"), [(640, 720), (480, 270), (300, 900), (128, 128), (1080, 1920)])
def test_the_face_lies_in_the_panels_upper_half_and_its_middle(width: int, height: int) -> None:
    face = placed(width, height)
    scale = mesh.SUPERSAMPLING
    eyes = face.points[[33, 263]].mean(axis=0) / scale
    assert face.canvas.shape[:2] == canvas_size(width, height)[::-1]
    assert abs(eyes[0] - width / 2) < 0.05 * width
    assert 0.25 * height < eyes[1] < 0.5 * height


def test_the_canvas_shows_at_a_point_what_the_picture_shows_there() -> None:
    picture = read_portrait(portrait_of("asha"), "asha.png")
    points = points_of("asha")
    face = place_face(picture, points, 640, 720)
    for index in (5, 50, 280, 152):
        x, y = points[index].round().astype(int)
        u, v = face.points[index].round().astype(int)
        assert np.abs(picture[y, x].astype(int) - face.canvas[v, u]).max() < 40


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda p: p + 5000, "outside"),
        (lambda p: p * 0 + 100, "upright"),
        (lambda p: p[:, ::-1].copy(), "upright"),
        (lambda p: p * np.float32("nan"), "number"),
        (lambda p: 480 + (p - 480) * 0.01, "upright|high"),
    ],
    ids=["outside", "collapsed", "lying", "not numbers", "a dot"],
)
def test_points_that_are_no_face_are_refused_by_name(change, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        placed(640, 720, change(points_of("asha")))
    assert caught.value.field == "points"
    assert caught.value.fix


def test_a_panel_too_small_for_a_mouth_is_refused() -> None:
    with pytest.raises(BadInput, match="pixels high") as caught:
        placed(64, 64)
    assert caught.value.field == "height"


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", portrait_of("asha").read_bytes()[:5000]], ids=["empty", "text", "cut off"]
)
def test_an_unreadable_portrait_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_portrait(path, "me.png")
    assert caught.value.field == "portrait"


def test_a_tiny_portrait_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    with pytest.raises(BadInput, match="20x20"):
        read_portrait(tmp_path / "tiny.png", "tiny.png")


def test_transparent_and_turned_pictures_are_read_as_they_are_shown(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (200, 200), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert read_portrait(tmp_path / "clear.png", "clear")[0, 0].tolist() == [128, 132, 138]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_portrait(tmp_path / "turned.jpg", "turned").shape == (300, 200, 3)


def test_a_dark_line_beside_the_guide_is_found_and_a_plain_area_leaves_the_guide() -> None:
    luma = np.full((100, 200), 200, np.float32)
    guide = np.stack((np.linspace(20, 180, 41), np.full(41, 50.0)), axis=1).astype(np.float32)
    np.testing.assert_array_equal(darkest_line(luma, guide, 8, bias=10), guide)
    luma[55:57] = 60
    assert np.abs(darkest_line(luma, guide, 8, bias=10)[:, 1] - 55.5).max() < 1.0
