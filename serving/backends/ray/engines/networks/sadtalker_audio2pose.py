"""SadTalker's PoseVAE: head motion from sound, a style and chance; loaded by engine ``sadtalker``.

Section 3.3 of the SadTalker paper (see ``sadtalker_audio2exp``). Only the decoder is here: the encoder and the
discriminator beside it in a checkpoint are for training.

The one invariant: parameters have the names and shapes of the published ``audio2pose``, and chance enters as the
argument ``latent`` alone.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from serving.backends.ray.engines.networks.checkpoint import build, part
from serving.backends.ray.engines.networks.conv import audio_encoder

FRAMES: Final = 32
"""Frames of one piece of head motion: 1.28 s at 25 frames a second."""

LATENT: Final = 64
POSE: Final = 6
"""Three angles and three shifts."""

STYLES: Final = 46
_EMBEDDING: Final = 512
_SOUND: Final = 6
_HIDDEN: Final = 128
_LEVELS: Final = (32, 64, 128, 256)


class _ResidualConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.conv_skip = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv_block(x) + self.conv_skip(x)
        return out


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, (2, 1), (2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.upsample(x)
        return out


class ResUnet(nn.Module):
    """A residual U-Net over time (Zhang, Liu, Wang: Road Extraction by Deep Residual U-Net, 2018)."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, deepest = _LEVELS
        self.input_layer = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, first, 3, padding=1),
        )
        self.input_skip = nn.Sequential(nn.Conv2d(1, first, 3, padding=1))
        self.residual_conv_1 = _ResidualConv(first, second, (2, 1))
        self.residual_conv_2 = _ResidualConv(second, third, (2, 1))
        self.bridge = _ResidualConv(third, deepest, (2, 1))
        self.upsample_1 = _Upsample(deepest)
        self.up_residual_conv1 = _ResidualConv(deepest + third, third, (1, 1))
        self.upsample_2 = _Upsample(third)
        self.up_residual_conv2 = _ResidualConv(third + second, second, (1, 1))
        self.upsample_3 = _Upsample(second)
        self.up_residual_conv3 = _ResidualConv(second + first, first, (1, 1))
        self.output_layer = nn.Sequential(nn.Conv2d(first, 1, 1, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 32, 6) to the same, 0 to 1."""
        one = self.input_layer(x) + self.input_skip(x)
        two = self.residual_conv_1(one)
        three = self.residual_conv_2(two)
        up = self.upsample_1(self.bridge(three))
        up = self.up_residual_conv1(torch.cat((up, three), dim=1))
        up = self.up_residual_conv2(torch.cat((self.upsample_2(up), two), dim=1))
        up = self.up_residual_conv3(torch.cat((self.upsample_3(up), one), dim=1))
        out: torch.Tensor = self.output_layer(up)
        return out


class Decoder(nn.Module):
    """The conditional VAE's decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.resunet = ResUnet()
        self.MLP = nn.Sequential()
        self.MLP.add_module("L0", nn.Linear(POSE + LATENT + FRAMES * _SOUND, _HIDDEN))
        self.MLP.add_module("A0", nn.ReLU())
        self.MLP.add_module("L1", nn.Linear(_HIDDEN, FRAMES * POSE))
        self.MLP.add_module("sigmoid", nn.Sigmoid())
        self.pose_linear = nn.Linear(POSE, POSE)
        self.linear_audio = nn.Linear(_EMBEDDING, _SOUND)
        self.classbias = nn.Parameter(torch.zeros(STYLES, LATENT))

    def forward(self, heard: torch.Tensor, first: torch.Tensor, style: int, latent: torch.Tensor) -> torch.Tensor:
        """Sound (batch, 32, 512), the first pose (6,) and chance (batch, 64) to motion (batch, 32, 6)."""
        batch = heard.shape[0]
        sound = self.linear_audio(heard).flatten(1)
        drawn = self.MLP(torch.cat((first.expand(batch, -1), latent + self.classbias[style], sound), dim=1))
        smooth = self.resunet(drawn.view(batch, 1, FRAMES, POSE))
        out: torch.Tensor = self.pose_linear(smooth[:, 0])
        return out


class _Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder()


class _Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()


class Audio2Pose(nn.Module):
    """Wav2Lip's speech encoder and the decoder of head motion."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = _Sound()
        self.netG = _Variational()

    def forward(self, mel: torch.Tensor, first: torch.Tensor, style: int, latent: torch.Tensor) -> torch.Tensor:
        """Head motion of pieces of 32 frames.

        Args:
            mel: (pieces, 32, 80, 16), -4 to 4.
            first: pose of the portrait, (6,).
            style: of speaking, 0 to 45.
            latent: standard normal, (pieces, 64).

        Returns:
            (pieces, 32, 6), to be added to the first pose.
        """
        heard = self.audio_encoder.audio_encoder(mel.flatten(0, 1)[:, None]).view(mel.shape[0], FRAMES, _EMBEDDING)
        out: torch.Tensor = self.netG.decoder(heard, first, style, latent)
        return out


def load_audio2pose(checkpoint: Mapping[str, object]) -> Audio2Pose:
    """The network of a checkpoint: ``{"model": ...}``, or one with ``audio2pose.`` before its keys.

    Raises:
        BadInput: keys are missing, foreign or misshapen.
    """
    weights = part(checkpoint, "audio2pose", "model")
    return build(Audio2Pose, weights, "SadTalker's audio2pose", unused=("netG.encoder.", "netD_motion."))
