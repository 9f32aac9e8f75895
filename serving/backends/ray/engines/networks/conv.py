"""The convolution blocks that Wav2Lip is made of, and whose audio half SadTalker shares; used by those networks.

The one invariant: a block's parameters are called ``conv_block.0`` (convolution) and ``conv_block.1`` (batch norm).
"""

import torch
from torch import nn

Size = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; with ``residual`` the input is added before the ReLU.

    Args:
        inputs: channels that come in.
        outputs: channels that go out; the same number where ``residual``.
        kernel: its size.
        stride: in height and width.
        padding: zeros on each side.
        residual: whether the input is added.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: Size, stride: Size, padding: Size, *, residual: bool = False
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs))
        self._residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, ...)."""
        out: torch.Tensor = self.conv_block(x)
        return torch.relu(out + x if self._residual else out)


class Deconv(nn.Module):
    """Transposed convolution of kernel 3, batch norm, ReLU: doubles the size, or makes 3x3 of 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride, padding, output_padding=stride - 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, ...)."""
        out: torch.Tensor = self.conv_block(x)
        return torch.relu(out)


def same(channels: int) -> Conv:
    """A residual block of kernel 3."""
    return Conv(channels, channels, 3, 1, 1, residual=True)


def audio_encoder() -> nn.Sequential:
    """Mel windows (batch, 1, 80, 16) to embeddings (batch, 512, 1, 1): 80x16, 27x16, 9x6, 3x3, 1x1."""
    return nn.Sequential(
        Conv(1, 32, 3, 1, 1),
        same(32),
        same(32),
        Conv(32, 64, 3, (3, 1), 1),
        same(64),
        same(64),
        Conv(64, 128, 3, 3, 1),
        same(128),
        same(128),
        Conv(128, 256, 3, (3, 2), 1),
        same(256),
        Conv(256, 512, 3, 1, 0),
        Conv(512, 512, 1, 1, 0),
    )
