"""Dense motion of the First Order Motion Model: from keypoints to where every pixel comes from; used by its generator.

The one invariant: parameters have the names and shapes of the published ``dense_motion_network``, and with equal
keypoints in both frames every candidate motion, and so their mixture, is the identity.
"""

from typing import Final, NamedTuple

import torch
from torch import nn

from serving.backends.ray.engines.networks.fomm_blocks import KEYPOINTS, Hourglass, Shrink, identity_grid, sample
from serving.backends.ray.engines.networks.fomm_keypoints import Keypoints, inverse

VARIANCE: Final = 0.01
"""Of the Gaussians that stand for keypoints, in the coordinates' units squared."""


class Motion(NamedTuple):
    """How a batch of frames comes from the source picture.

    Args:
        grid: (batch, height / 4, width / 4, 2): where each pixel of the new frame lies in the source.
        occlusion: (batch, 1, height / 4, width / 4), 0 to 1: how much of it the source shows at all.
    """

    grid: torch.Tensor
    occlusion: torch.Tensor


class DenseMotion(nn.Module):
    """Mixes one candidate motion for each keypoint, and standing still, by masks that it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.hourglass = Hourglass((KEYPOINTS + 1) * 4, 64)
        self.mask = nn.Conv2d(self.hourglass.channels, KEYPOINTS + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.channels, 1, 7, padding=3)
        self.down = Shrink()

    def forward(self, picture: torch.Tensor, source: Keypoints, driving: Keypoints) -> Motion:
        """Motion from a source to driving frames.

        Args:
            picture: the source (batch, 3, height, width), 0 to 1.
            source: its keypoints.
            driving: keypoints of the frames to make; all three of one batch size.
        """
        small = self.down(picture)
        batch, _, height, width = small.shape
        grid = identity_grid(height, width, small)
        candidates = candidate_motions(grid, source, driving)
        moved = sample(small.repeat_interleave(KEYPOINTS + 1, dim=0), candidates.flatten(0, 1)).view(
            batch, KEYPOINTS + 1, 3, height, width
        )
        heat = heat_difference(grid, source, driving)
        seen = torch.cat((heat[:, :, None], moved), dim=2).flatten(1, 2)
        features = self.hourglass(seen)
        masks = torch.softmax(self.mask(features), dim=1)
        mixed = torch.einsum("bkhw,bkhwc->bhwc", masks, candidates)
        return Motion(mixed, torch.sigmoid(self.occlusion(features)))


def candidate_motions(grid: torch.Tensor, source: Keypoints, driving: Keypoints) -> torch.Tensor:
    """Where each pixel comes from by each keypoint alone (the paper's equation 4), standing still first.

    Args:
        grid: (height, width, 2).
        source: keypoints of (batch, 10).
        driving: the same.

    Returns:
        (batch, 11, height, width, 2).
    """
    turn = source.jacobians @ inverse(driving.jacobians)
    away = grid - driving.places[:, :, None, None]
    by_keypoint = torch.einsum("bkij,bkhwj->bkhwi", turn, away) + source.places[:, :, None, None]
    still = grid.expand(by_keypoint.shape[0], 1, -1, -1, -1)
    return torch.cat((still, by_keypoint), dim=1)


def heat_difference(grid: torch.Tensor, source: Keypoints, driving: Keypoints) -> torch.Tensor:
    """Gaussians at the driving keypoints less those at the source's (equation 6): (batch, 11, height, width)."""
    there, here = (
        torch.exp(-0.5 * ((grid - places[:, :, None, None]) ** 2).sum(-1) / VARIANCE)
        for places in (driving.places, source.places)
    )
    heat = there - here
    return torch.cat((torch.zeros_like(heat[:, :1]), heat), dim=1)
