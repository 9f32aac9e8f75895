"""The drawn mouth is blended into the frame at its own resolution, without a seam."""

import json
from pathlib import Path

import numpy as np
import pytest

from serving.backends.ray.engines.wav2lip_paste import Box, face_box, mouth_mask, network_input, paste

POINTS = np.array(json.loads((Path(__file__).parent / "lipsync/asha_points.json").read_text()), np.float32)
POINTS = (POINTS - POINTS.min(axis=0)) / np.ptp(POINTS[:, 1]) * 200 + 40
"""A face 200 pixels high whose upper left corner lies at 40, 40."""

BOX = face_box(POINTS, 400, 400)


def frame() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8)


def test_the_box_holds_the_face_and_room_below_the_chin() -> None:
    assert (BOX.left, BOX.top) == (40, 40)
    assert BOX.bottom == pytest.approx(256, abs=1)
    assert POINTS[:, 0].max() <= BOX.right <= POINTS[:, 0].max() + 1


def test_the_box_is_cut_at_the_frames_edges() -> None:
    assert face_box(POINTS - 60, 120, 130) == Box(0, 0, 120, 130)


def test_the_network_sees_the_face_twice_once_without_its_lower_half_and_blue_first() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[:, :] = (255, 128, 0)
    seen = network_input(picture, BOX, 96)
    assert seen.shape == (6, 96, 96)
    assert seen.dtype == np.float32
    assert seen[:3, 48:].max() == 0
    assert seen[3:, 50, 50].tolist() == pytest.approx([0, 128 / 255, 1])
    assert np.array_equal(seen[:3, :48], seen[3:, :48])


def test_the_mask_is_whole_on_the_mouth_and_nothing_at_the_edges_and_on_the_eyes() -> None:
    mask = mouth_mask(POINTS, BOX)[:, :, 0]
    assert mask.shape == (BOX.bottom - BOX.top, BOX.right - BOX.left)
    mouth = POINTS[[13, 14, 61, 291]].mean(axis=0) - (BOX.left, BOX.top)
    assert mask[int(mouth[1]), int(mouth[0])] > 0.98
    eyes = POINTS[[33, 263, 159, 386]] - (BOX.left, BOX.top)
    assert max(mask[int(y), int(x)] for x, y in eyes) < 0.05
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0
    assert np.abs(np.diff(mask, axis=0)).max() < 0.25


def test_what_lies_outside_the_box_is_untouched_and_the_mouth_is_the_drawn_one() -> None:
    before = frame()
    pasted = paste(before, BOX, mouth_mask(POINTS, BOX), np.full((96, 96, 3), 200, np.uint8))
    outside = np.ones((400, 400), bool)
    outside[BOX.top : BOX.bottom, BOX.left : BOX.right] = False
    assert np.array_equal(pasted[outside], before[outside])
    mouth = POINTS[[13, 14]].mean(axis=0).astype(int)
    assert np.abs(pasted[mouth[1], mouth[0]].astype(int) - 200).max() <= 2


def test_the_face_itself_drawn_again_changes_nothing_much() -> None:
    flat = np.full((400, 400, 3), 90, np.uint8)
    assert np.array_equal(paste(flat, BOX, mouth_mask(POINTS, BOX), np.full((96, 96, 3), 90, np.uint8)), flat)
