"""Keypoints lie in the picture, and relative motion moves the source as the driving face moved."""

import numpy as np
import pytest
import torch

from serving.backends.ray.engines.networks.fomm_generator import load_fomm
from serving.backends.ray.engines.networks.fomm_keypoints import (
    KeypointDetector,
    Keypoints,
    inverse,
    movement_scale,
    relative,
)


@pytest.fixture(scope="module")
def detector(fomm_weights: dict) -> KeypointDetector:
    return load_fomm(fomm_weights).detector


def points(seed: int, batch: int = 1) -> Keypoints:
    chance = torch.Generator().manual_seed(seed)
    jacobians = torch.eye(2) + 0.2 * torch.rand(batch, 10, 2, 2, generator=chance)
    return Keypoints(torch.rand(batch, 10, 2, generator=chance) - 0.5, jacobians)


def picture(seed: int, px: int = 128) -> torch.Tensor:
    return torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(seed))


def test_keypoints_lie_inside_the_picture(detector: KeypointDetector) -> None:
    found = detector(torch.cat((picture(1), picture(2))))
    assert found.places.shape == (2, 10, 2)
    assert found.jacobians.shape == (2, 10, 2, 2)
    assert found.places.abs().max() <= 1
    assert not torch.allclose(found.places[0], found.places[1])


def test_equal_pictures_have_equal_keypoints(detector: KeypointDetector) -> None:
    one, two = detector(picture(1)), detector(picture(1))
    assert torch.equal(one.places, two.places)
    assert torch.equal(one.jacobians, two.jacobians)


def test_a_driving_frame_like_the_first_leaves_the_source_as_it_is() -> None:
    source, first = points(1), points(2)
    kept = relative(source, first, first, 3.0)
    torch.testing.assert_close(kept.places, source.places)
    torch.testing.assert_close(kept.jacobians, source.jacobians)


def test_places_move_by_the_scaled_movement_and_turns_are_passed_on() -> None:
    source, first = points(1), points(2)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    driving = Keypoints(first.places + torch.tensor([0.1, 0.2]), turn @ first.jacobians)
    moved = relative(source, driving, first, 0.5)
    torch.testing.assert_close(moved.places, source.places + torch.tensor([0.05, 0.1]))
    torch.testing.assert_close(moved.jacobians, turn @ source.jacobians)


def test_one_source_serves_a_batch_of_driving_frames() -> None:
    moved = relative(points(1), points(3, batch=4), points(2), 1.0)
    assert moved.places.shape == (4, 10, 2)
    assert moved.jacobians.shape == (4, 10, 2, 2)


def test_the_closed_form_inverts() -> None:
    matrices = points(4, batch=3).jacobians
    torch.testing.assert_close(inverse(matrices), torch.linalg.inv(matrices))


def square(side: float) -> Keypoints:
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    inner = torch.zeros(6, 2)
    return Keypoints(torch.cat((corners, inner))[None], torch.eye(2).expand(1, 10, 2, 2))


def test_movement_scales_with_the_size_of_the_faces() -> None:
    assert movement_scale(square(1.0), square(0.5)) == pytest.approx(2)
    assert movement_scale(square(0.5), square(1.0)) == pytest.approx(0.5)


def test_keypoints_in_one_place_do_not_scale_movement() -> None:
    nowhere = Keypoints(torch.zeros(1, 10, 2), torch.eye(2).expand(1, 10, 2, 2))
    assert movement_scale(square(1.0), nowhere) == 1.0
    assert np.isfinite(movement_scale(nowhere, square(1.0)))
