"""Keypoints of the First Order Motion Model: where they are, and how the picture moves around each; engine ``fomm``.

Siarohin, Lathuiliere, Tulyakov, Ricci, Sebe: First Order Motion Model for Image Animation, NeurIPS 2019, sections 3.1
and 3.4.

The one invariant: parameters have the names and shapes of the published ``kp_detector``, and relative motion between
equal keypoints is none: the source's own keypoints come out.
"""

from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from serving.backends.ray.engines.networks.fomm_blocks import KEYPOINTS, Hourglass, Shrink, identity_grid

TEMPERATURE: Final = 0.1
"""Sharpens the heat maps before they become places."""

_LEAST_AREA: Final = 1e-6


class Keypoints(NamedTuple):
    """Keypoints of a batch of pictures.

    Args:
        places: (batch, 10, 2), x and y from -1 to 1.
        jacobians: (batch, 10, 2, 2), the local linear motion relative to the model's abstract reference frame.
    """

    places: torch.Tensor
    jacobians: torch.Tensor


class KeypointDetector(nn.Module):
    """Finds keypoints; trained without labels, so they mean nothing by name."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor = Hourglass(3, 32)
        self.kp = nn.Conv2d(self.predictor.channels, KEYPOINTS, 7)
        self.jacobian = nn.Conv2d(self.predictor.channels, 4 * KEYPOINTS, 7)
        self.down = Shrink()

    def forward(self, picture: torch.Tensor) -> Keypoints:
        """Keypoints of pictures (batch, 3, height, width), 0 to 1, red-green-blue, sides divisible by 128."""
        features = self.predictor(self.down(picture))
        heat = self.kp(features)
        batch, _, height, width = heat.shape
        weights = torch.softmax(heat.flatten(2) / TEMPERATURE, dim=2)
        places = weights @ identity_grid(height, width, heat).flatten(0, 1)
        maps = self.jacobian(features).view(batch, KEYPOINTS, 4, height * width)
        jacobians = torch.einsum("bkn,bkjn->bkj", weights, maps)
        return Keypoints(places, jacobians.view(batch, KEYPOINTS, 2, 2))


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Inverses of (..., 2, 2), in closed form: exportable, and quicker than a general one."""
    a, b, c, d = matrices.flatten(-2).unbind(-1)
    adjugate = torch.stack((d, -b, -c, a), dim=-1).view(matrices.shape)
    return adjugate / (a * d - b * c)[..., None, None]


def movement_scale(source: Keypoints, first: Keypoints) -> float:
    """By how much movement is scaled when the source's face is larger or smaller than the driving one.

    The root of the ratio of the areas of both convex hulls; 1 where one of them has no area.
    """
    here, there = (_hull_area(keypoints) for keypoints in (source, first))
    return float(np.sqrt(here / there)) if min(here, there) > _LEAST_AREA else 1.0


def _hull_area(keypoints: Keypoints) -> float:
    places = keypoints.places[0].float().cpu().numpy()
    return float(cv2.contourArea(cv2.convexHull(places)))


def relative(source: Keypoints, driving: Keypoints, first: Keypoints, scale: float) -> Keypoints:
    """The source's keypoints, moved as the driving ones moved since the first frame (section 3.4 of the paper).

    Args:
        source: of the picture to animate, a batch of one.
        driving: of driving frames, a batch of any size.
        first: of the first driving frame, a batch of one.
        scale: of the movement, see :func:`movement_scale`.

    Returns:
        Keypoints of the driving frames' batch size.
    """
    places = source.places + (driving.places - first.places) * scale
    jacobians = driving.jacobians @ inverse(first.jacobians) @ source.jacobians
    return Keypoints(places, jacobians)
