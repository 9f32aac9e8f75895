"""Generator of the First Order Motion Model: the source picture, moved, with what it hid drawn anew; engine ``fomm``.

The one invariant: parameters have the names and shapes of the published ``generator`` (vox-256: 10 keypoints, two
halvings, six residual blocks), and a frame depends on the source and its own keypoints alone.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from serving.backends.ray.engines.networks.checkpoint import build, part
from serving.backends.ray.engines.networks.fomm_blocks import Block, Down, Residual, Up, sample
from serving.backends.ray.engines.networks.fomm_keypoints import KeypointDetector, Keypoints
from serving.backends.ray.engines.networks.fomm_motion import DenseMotion

PICTURE_PX = 256
"""Width and height that the published weights were trained on."""


class Encoder(nn.Module):
    """Makes features of the source, which all frames share.

    Args:
        first: of a generator.
        down_blocks: of it.
    """

    def __init__(self, first: nn.Module, down_blocks: nn.ModuleList) -> None:
        super().__init__()
        self.first, self.down_blocks = first, down_blocks

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(1, 3, height, width), 0 to 1, to (1, 256, height / 4, width / 4)."""
        features: torch.Tensor = self.first(picture)
        for block in self.down_blocks:
            features = block(features)
        return features


class Generator(nn.Module):
    """Warps the source's features, hides what the source does not show, and draws the frame.

    Its first layers, which make the features, are the :class:`Encoder`'s once that is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion()
        self.first = Block(3, 64, 7)
        self.down_blocks = nn.ModuleList((Down(64, 128), Down(128, 256)))
        self.up_blocks = nn.ModuleList((Up(256, 128), Up(128, 64)))
        self.bottleneck = nn.Sequential()
        for index in range(6):
            self.bottleneck.add_module(f"r{index}", Residual(256))
        self.final = nn.Conv2d(64, 3, 7, padding=3)

    def take_encoder(self) -> Encoder:
        """Its first layers, as a network of their own."""
        encoder = Encoder(self.first, self.down_blocks)
        del self.first, self.down_blocks
        return encoder.eval()

    def forward(
        self, picture: torch.Tensor, features: torch.Tensor, source: Keypoints, driving: Keypoints
    ) -> torch.Tensor:
        """Draw frames.

        Args:
            picture: the source (1, 3, height, width), 0 to 1, red-green-blue, sides divisible by 128.
            features: what the encoder made of it.
            source: its keypoints, a batch of one.
            driving: keypoints of the frames to draw.

        Returns:
            (frames, 3, height, width), 0 to 1.
        """
        frames = driving.places.shape[0]
        still = Keypoints(source.places.expand(frames, -1, -1), source.jacobians.expand(frames, -1, -1, -1))
        motion = self.dense_motion_network(picture.expand(frames, -1, -1, -1), still, driving)
        out = sample(features.expand(frames, -1, -1, -1), motion.grid) * motion.occlusion
        out = self.bottleneck(out)
        for block in self.up_blocks:
            out = block(out)
        return functional.sigmoid(self.final(out))


class Networks(NamedTuple):
    """What the model is made of."""

    encoder: Encoder
    generator: Generator
    detector: KeypointDetector


def load_fomm(checkpoint: Mapping[str, object]) -> Networks:
    """The networks of a checkpoint ``{"generator": ..., "kp_detector": ...}``, or with those names before its keys.

    What training left beside them (discriminator, optimisers) is not looked at.

    Raises:
        BadInput: keys are missing, foreign or misshapen.
    """
    generator = build(Generator, part(checkpoint, "generator"), "FOMM's generator")
    detector = build(KeypointDetector, part(checkpoint, "kp_detector"), "FOMM's keypoint detector")
    return Networks(generator.take_encoder(), generator, detector)
