"""SadTalker's ExpNet: facial expression from sound; loaded by engine ``sadtalker``.

Zhang, Cun, Wang, Zhang, Shen, Guo, Shan, Wang: SadTalker: Learning Realistic 3D Motion Coefficients for Stylized
Audio-Driven Single Image Talking Face Animation, CVPR 2023, section 3.2.

The one invariant: parameters have the names and shapes of the published ``audio2exp``, and a frame depends on its own
window of sound, the first frame's expression and its own blink alone.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from serving.backends.ray.engines.networks.checkpoint import build, part
from serving.backends.ray.engines.networks.conv import audio_encoder

EXPRESSION: Final = 64
"""Expression coefficients of the 3D morphable face model."""


class Audio2Exp(nn.Module):
    """Wav2Lip's speech encoder, and one linear layer on its output, the reference expression and the blink."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder()
        self.mapping1 = nn.Linear(512 + EXPRESSION + 1, EXPRESSION)

    def forward(self, mel: torch.Tensor, reference: torch.Tensor, blink: torch.Tensor) -> torch.Tensor:
        """Expressions of frames.

        Args:
            mel: (frames, 1, 80, 16), -4 to 4.
            reference: expression of the portrait, (64,).
            blink: (frames,), 0 (open) to 1 (closed).

        Returns:
            (frames, 64).
        """
        heard = self.audio_encoder(mel).flatten(1)
        like = reference.expand(heard.shape[0], -1)
        out: torch.Tensor = self.mapping1(torch.cat((heard, like, blink[:, None]), dim=1))
        return out


def load_audio2exp(checkpoint: Mapping[str, object]) -> Audio2Exp:
    """The network of a checkpoint: ``{"model": ...}``, or one with ``audio2exp.`` before its keys.

    Raises:
        BadInput: keys are missing, foreign or misshapen.
    """
    return build(Audio2Exp, part(checkpoint, "audio2exp", "model"), "SadTalker's audio2exp")
