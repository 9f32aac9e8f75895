"""Dense motion is the identity between equal keypoints, and follows them where they move."""

import torch

from serving.backends.ray.engines.networks.fomm_blocks import identity_grid
from serving.backends.ray.engines.networks.fomm_generator import load_fomm
from serving.backends.ray.engines.networks.fomm_keypoints import Keypoints
from serving.backends.ray.engines.networks.fomm_motion import candidate_motions, heat_difference

GRID = identity_grid(16, 16, torch.zeros(1))


def points(shift: float = 0.0) -> Keypoints:
    chance = torch.Generator().manual_seed(1)
    places = torch.rand(1, 10, 2, generator=chance) - 0.5 + shift
    return Keypoints(places, torch.eye(2) + 0.1 * torch.rand(1, 10, 2, 2, generator=chance))


def test_equal_keypoints_give_the_identity_as_every_candidate() -> None:
    motions = candidate_motions(GRID, points(), points())
    assert motions.shape == (1, 11, 16, 16, 2)
    torch.testing.assert_close(motions, GRID.expand_as(motions), atol=1e-6, rtol=0)


def test_equal_keypoints_make_no_difference_in_heat() -> None:
    assert heat_difference(GRID, points(), points()).abs().max() == 0


def test_a_shifted_keypoint_fetches_from_where_it_was() -> None:
    motions = candidate_motions(GRID, points(), points(shift=0.25))
    torch.testing.assert_close(motions[:, 1:], (GRID - 0.25).expand(1, 10, -1, -1, -1))
    assert torch.equal(motions[0, 0], GRID)


def test_the_mixture_of_identities_is_the_identity(fomm_weights: dict) -> None:
    dense = load_fomm(fomm_weights).generator.dense_motion_network
    motion = dense(torch.rand(1, 3, 128, 128), points(), points())
    assert motion.grid.shape == (1, 32, 32, 2)
    torch.testing.assert_close(motion.grid[0], identity_grid(32, 32, torch.zeros(1)), atol=1e-5, rtol=0)
    assert motion.occlusion.shape == (1, 1, 32, 32)
    assert 0 <= motion.occlusion.min() <= motion.occlusion.max() <= 1
