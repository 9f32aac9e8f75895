"""The blocks of the First Order Motion Model keep to their coordinates."""

import torch

from serving.backends.ray.engines.networks.fomm_blocks import Hourglass, Shrink, identity_grid, sample


def test_the_identity_grid_samples_a_picture_exactly() -> None:
    picture = torch.rand(1, 3, 20, 31, generator=torch.Generator().manual_seed(1))
    moved = sample(picture, identity_grid(20, 31, picture)[None])
    torch.testing.assert_close(moved, picture, atol=1e-5, rtol=0)


def test_coordinates_are_x_then_y_from_corner_to_corner() -> None:
    grid = identity_grid(3, 5, torch.zeros(1))
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[2, 4].tolist() == [1, 1]
    assert grid[0, 4].tolist() == [1, -1]


def test_shrinking_keeps_a_flat_picture_and_drops_what_is_too_fine() -> None:
    flat = Shrink()(torch.full((1, 3, 64, 64), 0.5))
    assert flat.shape == (1, 3, 16, 16)
    torch.testing.assert_close(flat[:, :, 3:-3, 3:-3], torch.full((1, 3, 10, 10), 0.5))
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert Shrink()(stripes)[:, :, 3:-3, 3:-3].std() < 1e-3


def test_an_hourglass_returns_its_input_beside_what_it_made() -> None:
    glass = Hourglass(3, 4).eval()
    picture = torch.rand(1, 3, 32, 32)
    out = glass(picture)
    assert out.shape == (1, glass.channels, 32, 32)
    assert torch.equal(out[:, -3:], picture)
