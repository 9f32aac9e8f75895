import math

import numpy as np
import pytest

from serving.backends.triton.adapters.face_geometry import (
    Crop,
    Tile,
    around,
    close_ups,
    crop_of_detection,
    crop_of_points,
    in_picture,
    overlaps,
    prominent_face,
    whole,
)


def face(x: float, y: float, side: float, *, tilt: float = 0.0) -> np.ndarray:
    """A detection: a square box, eyes a fifth of its side beside the centre, turned by ``tilt`` radians."""
    across, down = math.cos(tilt) * side / 5, math.sin(tilt) * side / 5
    eyes = [x - across, y - down, x + across, y + down]
    return np.array([x, y, side, side, *eyes, *[0.0] * 8], np.float32)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 60), Tile(0, -20, 100)), ((60, 100), Tile(-20, 0, 100))], ids=["wide", "tall"]
)
def test_the_whole_picture_is_seen_centred_in_a_square(size: tuple[int, int], expected: Tile) -> None:
    assert whole(*size) == expected


@pytest.mark.parametrize("size", [(400, 400), (400, 200), (1000, 130), (130, 1000), (128, 128)])
def test_close_ups_cover_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    seen = np.zeros((height, width), bool)
    tiles = close_ups(width, height)
    for left, top, side in tiles:
        seen[max(0, round(top)) : round(top + side), max(0, round(left)) : round(left + side)] = True
    assert seen.all()
    assert len(tiles) <= 9


def test_a_detection_in_a_tile_is_moved_into_the_picture() -> None:
    moved = in_picture(face(0.5, 0.25, 0.1)[np.newaxis], Tile(100, -50, 200))
    np.testing.assert_allclose(moved[0, :8], face(200, 0, 20)[:8])


def test_a_closer_look_is_centred_on_the_face() -> None:
    assert around(face(100, 50, 40)) == Tile(50, 0, 100)


def test_the_largest_face_wins_over_a_surer_but_smaller_one() -> None:
    found = prominent_face(np.stack([face(20, 20, 10), face(80, 80, 40)]), np.array([0.95, 0.8], np.float32), 0.5)
    assert found is not None
    np.testing.assert_allclose(found[0][:4], [80, 80, 40, 40])
    assert found[1] == pytest.approx(0.8)


def test_neighbouring_detections_of_one_face_are_averaged_by_score() -> None:
    detections = np.stack([face(80, 80, 40), face(84, 80, 40), face(10, 10, 5)])
    found = prominent_face(detections, np.array([0.9, 0.6, 0.9], np.float32), 0.5)
    assert found is not None
    assert found[0][0] == pytest.approx(81.6)
    assert found[1] == pytest.approx(0.9)


def test_scores_below_the_threshold_are_no_face() -> None:
    assert prominent_face(face(1, 1, 1)[np.newaxis], np.array([0.49], np.float32), 0.5) is None


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 2, 2], [5, 5, 2, 2]], np.float32)
    np.testing.assert_allclose(overlaps(boxes, np.array([0, 0, 2, 2], np.float32)), [1, 1 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 0.4, -1.2, math.pi / 2])
def test_a_crop_is_turned_until_the_eyes_are_level(tilt: float) -> None:
    crop = crop_of_detection(face(50, 60, 20, tilt=tilt))
    assert crop == Crop(pytest.approx(50), pytest.approx(60), 30, pytest.approx(tilt, abs=1e-6))


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_points_go_back_to_where_the_crop_was_cut(angle: float) -> None:
    crop, size = Crop(100, 50, 64, angle), 192
    a, b, c, d, e, f = crop.affine(size)
    for u, v in [(0, 0), (192, 0), (30, 100), (96, 96)]:
        back = crop.to_picture(np.array([[u / size, v / size]], np.float32))[0]
        assert back.tolist() == pytest.approx([a * u + b * v + c, d * u + e * v + f], abs=1e-3)


def test_the_crop_round_a_mesh_is_centred_on_it() -> None:
    points = np.zeros((468, 2), np.float32)
    points[0], points[1], points[33], points[263] = (10, 20), (50, 40), (20, 30), (40, 30)
    points[2:33] = points[34:263] = points[264:] = (30, 30)
    assert crop_of_points(points) == Crop(30, 30, 60, 0)
