"""Wav2Lip's generator, which redraws the lower half of a face to fit a piece of sound; loaded by engine ``wav2lip``.

Prajwal, Mukhopadhyay, Namboodiri, Jawahar: A Lip Sync Expert Is All You Need for Speech to Lip Generation in the Wild,
ACM Multimedia 2020: a face encoder and a speech encoder meet in one vector, and a decoder with skip connections from
the face encoder draws the frame.

The one invariant: parameters have the names and shapes of the published generator (352 of them), and a frame depends on
its own window of sound and its own face alone, so that batches of any size give the same pictures.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from serving.backends.ray.engines.networks.checkpoint import build, part
from serving.backends.ray.engines.networks.conv import Conv, Deconv, audio_encoder, same

FACE_PX: Final = 96
"""Width and height of the face the network sees and draws."""

_ENCODER: Final = ((32, 2), (64, 3), (128, 2), (256, 2), (512, 1))
"""Channels after each halving of the size, and the residual blocks that follow it: 48, 24, 12, 6 and 3 pixels."""

_DECODER: Final = ((1024, 512, 2), (768, 384, 2), (512, 256, 2), (320, 128, 2), (160, 64, 2))
"""Channels in (of the level before and its skip connection) and out at each doubling, and the residual blocks."""


class Wav2Lip(nn.Module):
    """The generator: speech encoder, face encoder, face decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList(_face_encoder())
        self.audio_encoder = audio_encoder()
        self.face_decoder_blocks = nn.ModuleList(_face_decoder())
        self.output_block = nn.Sequential(Conv(80, 32, 3, 1, 1), nn.Conv2d(32, 3, 1), nn.Sigmoid())

    def forward(self, mel: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        """Draw faces.

        Args:
            mel: float (batch, 1, 80, 16), -4 to 4: 16 mel frames (0.2 s) for each video frame.
            face: float (batch, 6, 96, 96), 0 to 1, blue-green-red: first the face with its lower half black, then a
                reference picture of the whole face.

        Returns:
            float (batch, 3, 96, 96), 0 to 1, blue-green-red.
        """
        levels = []
        for block in self.face_encoder_blocks:
            face = block(face)
            levels.append(face)
        drawn: torch.Tensor = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            drawn = torch.cat((block(drawn), levels.pop()), dim=1)
        picture: torch.Tensor = self.output_block(drawn)
        return picture


def _face_encoder() -> list[nn.Sequential]:
    blocks = [nn.Sequential(Conv(6, 16, 7, 1, 3))]
    before = 16
    for channels, residuals in _ENCODER:
        blocks.append(nn.Sequential(Conv(before, channels, 3, 2, 1), *(same(channels) for _ in range(residuals))))
        before = channels
    return [*blocks, nn.Sequential(Conv(before, before, 3, 1, 0), Conv(before, before, 1, 1, 0))]


def _face_decoder() -> list[nn.Sequential]:
    blocks = [nn.Sequential(Conv(512, 512, 1, 1, 0)), nn.Sequential(Deconv(1024, 512, 1, 0), same(512))]
    for inputs, channels, residuals in _DECODER:
        blocks.append(nn.Sequential(Deconv(inputs, channels, 2, 1), *(same(channels) for _ in range(residuals))))
    return blocks


def load_wav2lip(checkpoint: Mapping[str, object]) -> Wav2Lip:
    """The network with the weights of a checkpoint: ``{"state_dict": {"module.<name>": ...}}``, or the names alone.

    Raises:
        BadInput: keys are missing, foreign or misshapen.
    """
    return build(Wav2Lip, part(checkpoint, "state_dict"), "Wav2Lip")
