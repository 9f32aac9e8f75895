"""The blocks that the First Order Motion Model's networks are made of: hourglass, anti-aliased shrinking, grids; used
by ``fomm_keypoints``, ``fomm_motion`` and ``fomm_generator``.

The one invariant: coordinates run from -1 to 1 between the centres of the outermost pixels, x before y, so the identity
grid samples a picture exactly.
"""

import itertools
from typing import Final

import torch
from torch import nn
from torch.nn import functional

KEYPOINTS: Final = 10
SHRINK: Final = 4
"""Keypoints and motion are found on a picture of a quarter of the width and height."""

_SIGMA: Final = (SHRINK - 1) / 2
_BLUR_PX: Final = 13
"""Four sigmas to each side, and the middle."""


class Block(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        return torch.relu(self.norm(self.conv(x)))


class Down(Block):
    """A block, then half the size by averaging."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / 2, width / 2)."""
        return functional.avg_pool2d(super().forward(x), 2)


class Up(Block):
    """Double the size by repeating, then a block."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, 2 height, 2 width)."""
        return super().forward(functional.interpolate(x, scale_factor=2.0))


class Residual(nn.Module):
    """Two pre-activated convolutions, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to the same."""
        inner = self.conv1(torch.relu(self.norm1(x)))
        out: torch.Tensor = x + self.conv2(torch.relu(self.norm2(inner)))
        return out


class _Encoder(nn.Module):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(sizes))


class _Decoder(nn.Module):
    def __init__(self, sizes: list[int], outputs: list[int]) -> None:
        super().__init__()
        inputs = [sizes[-1], *(a + b for a, b in zip(outputs[:-1], sizes[-2:0:-1], strict=True))]
        self.up_blocks = nn.ModuleList(Up(a, b) for a, b in zip(inputs, outputs, strict=True))


class Hourglass(nn.Module):
    """Five halvings and five doublings with skip connections (a U-Net).

    Args:
        channels: of the input.
        width: channels of the outermost level; each level inwards has twice as many, at most 1024.

    Attributes:
        channels: of the output: ``width`` and the input's.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        levels = [min(1024, width << level) for level in range(6)]
        self.encoder = _Encoder([channels, *levels[1:]])
        self.decoder = _Decoder([channels, *levels[1:]], levels[4::-1])
        self.channels = channels + width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width), both divisible by 32, to (batch, self.channels, height, width)."""
        levels = [x]
        for block in self.encoder.down_blocks:
            levels.append(block(levels[-1]))
        out = levels.pop()
        for block in self.decoder.up_blocks:
            out = torch.cat((block(out), levels.pop()), dim=1)
        return out


class Shrink(nn.Module):
    """A quarter of the size, after a Gaussian blur that keeps finer detail from folding over."""

    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.exp(-((torch.arange(_BLUR_PX) - _BLUR_PX // 2) ** 2) / (2 * _SIGMA**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("weight", kernel.expand(3, 1, -1, -1).clone())

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) to (batch, 3, height / 4, width / 4)."""
        blurred = functional.conv2d(picture, self.weight, padding=_BLUR_PX // 2, groups=3)
        return blurred[:, :, ::SHRINK, ::SHRINK]


def identity_grid(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Where every pixel lies: (height, width, 2), x and y from -1 to 1, of the type and on the device of ``like``."""
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)


def sample(picture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The picture (batch, channels, h, w) at the places of a grid (batch, height, width, 2); black outside it.

    Corners are aligned, as the coordinates are and as torch did it when the published weights were trained.
    """
    return functional.grid_sample(picture, grid, align_corners=True)
