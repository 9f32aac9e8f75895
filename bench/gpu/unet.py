"""The UNets of Stable Diffusion XL and Stable Video Diffusion at any size; built by bench.gpu.networks.

The one invariant: with :data:`SDXL` and :data:`SVD` these are the published architectures, parameter for parameter
(stabilityai/stable-diffusion-xl-base-1.0 and stabilityai/stable-video-diffusion-img2vid, `unet/config.json`).
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from bench.gpu.layers import GROUPS, Downsample, Resnet, SpatialTransformer, TimeEmbedding, Upsample, sinusoid
from bench.gpu.temporal import SpatioTemporalResnet, SpatioTemporalTransformer

LAYERS: Final = 2
"""Residual blocks per level on the way down; one more on the way up."""
EPS: Final = 1e-5


class UNetConfig(NamedTuple):
    """A UNet's size.

    Args:
        inputs: channels of the latents that go in; 4 come out.
        widths: channels of each level, from the largest picture to the smallest, multiples of 32.
        heads: attention heads of each level.
        depths: transformer blocks of each level; 0 for levels without.
        middle_depth: transformer blocks in the middle.
        context: width of the text or picture embedding.
        time_ids: width of the sinusoid of each added number.
        added: width of what is added to the time embedding, all together.
        video: whether there are layers along time.
        eps: of the residual blocks beside transformers on the way down, and of all on the way up; 1e-5 elsewhere.
    """

    inputs: int
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    time_ids: int
    added: int
    video: bool
    eps: float

    @property
    def time(self) -> int:
        """Width of the time embedding."""
        return 4 * self.widths[0]


SDXL: Final = UNetConfig(4, (320, 640, 1280), (5, 10, 20), (0, 2, 10), 10, 2048, 256, 2816, False, EPS)
SVD: Final = UNetConfig(
    8, (320, 640, 1280, 1280), (5, 10, 20, 20), (1, 1, 1, 0), 1, 1024, 256, 768, video=True, eps=1e-6
)
TINY_SDXL: Final = SDXL._replace(
    widths=(32, 64), heads=(2, 4), depths=(0, 2), middle_depth=2, context=64, time_ids=8, added=80
)
TINY_SVD: Final = SVD._replace(
    widths=(32, 64), heads=(2, 4), depths=(1, 0), middle_depth=1, context=32, time_ids=32, added=96
)


class Level(nn.Module):
    """Residual blocks of one resolution, each with a transformer where the level has them, and the change of size."""

    def __init__(self, config: UNetConfig, level: int, sizes: list[tuple[int, int]], eps: float) -> None:
        super().__init__()
        resnet = SpatioTemporalResnet if config.video else Resnet
        self.resnets = nn.ModuleList([resnet(before, after, config.time, eps) for before, after in sizes])
        depth = config.depths[level]
        self.attentions = nn.ModuleList([transformer(config, level, depth) for _ in sizes]) if depth else None


def transformer(config: UNetConfig, level: int, depth: int) -> nn.Module:
    """The transformer of a level."""
    kind = SpatioTemporalTransformer if config.video else SpatialTransformer
    return kind(config.widths[level], config.heads[level], depth, config.context)


class Down(Level):
    """A level on the way down."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        before, after = config.widths[max(level - 1, 0)], config.widths[level]
        sizes = [(before, after), *[(after, after)] * (LAYERS - 1)]
        super().__init__(config, level, sizes, config.eps if config.depths[level] else EPS)
        last = level == len(config.widths) - 1
        self.downsamplers = None if last else nn.ModuleList([Downsample(after)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, frames: int, skips: list[Tensor]) -> Tensor:
        """Append what the way up will want to skips."""
        for number, resnet in enumerate(self.resnets):
            x = resnet(x, time, frames)
            if self.attentions is not None:
                x = self.attentions[number](x, context, frames)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class Middle(nn.Module):
    """The smallest resolution: a transformer between two residual blocks."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        resnet = SpatioTemporalResnet if config.video else Resnet
        width = config.widths[-1]
        self.resnets = nn.ModuleList([resnet(width, width, config.time, EPS) for _ in range(2)])
        self.attentions = nn.ModuleList([transformer(config, -1, config.middle_depth)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, frames: int) -> Tensor:
        """Run the three."""
        x = self.attentions[0](self.resnets[0](x, time, frames), context, frames)
        out: Tensor = self.resnets[1](x, time, frames)
        return out


def up_sizes(widths: tuple[int, ...], level: int) -> list[tuple[int, int]]:
    """Channels that go into each residual block of a level on the way up, skips included, and those that come out."""
    after = widths[level]
    below = widths[min(level + 1, len(widths) - 1)]
    above = widths[max(level - 1, 0)]
    return [(below + after, after), *[(2 * after, after)] * (LAYERS - 1), (after + above, after)]


class Up(Level):
    """A level on the way up."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__(config, level, up_sizes(config.widths, level), config.eps)
        self.upsamplers = nn.ModuleList([Upsample(config.widths[level])]) if level else None

    def forward(self, x: Tensor, time: Tensor, context: Tensor, frames: int, skips: list[Tensor]) -> Tensor:
        """Take what is wanted from the end of skips."""
        for number, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time, frames)
            if self.attentions is not None:
                x = self.attentions[number](x, context, frames)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x)
        return x


class UNet(nn.Module):
    """One denoising step of pictures; :class:`VideoUNet` is that of videos."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        first, levels = config.widths[0], range(len(config.widths))
        self.size = config
        self.conv_in = nn.Conv2d(config.inputs, first, 3, padding=1)
        self.time_embedding = TimeEmbedding(first, config.time)
        self.add_embedding = TimeEmbedding(config.added, config.time)
        self.down_blocks = nn.ModuleList([Down(config, level) for level in levels])
        self.mid_block = Middle(config)
        self.up_blocks = nn.ModuleList([Up(config, level) for level in reversed(levels)])
        self.conv_norm_out = nn.GroupNorm(GROUPS, first, eps=EPS)
        self.conv_out = nn.Conv2d(first, 4, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, time_ids: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            sample: latents, (n, 4, h, w), h and w multiples of 2 ** (levels - 1).
            timestep: of each picture, (n,), 0 to 1000.
            context: text embedding, (n, words, context).
            pooled: text embedding of the whole, (n, added - 6 * time_ids).
            time_ids: sizes and crops in pixels, (n, 6).

        Returns:
            (n, 4, h, w), in the sample's dtype.
        """
        ids = sinusoid(time_ids.flatten(), self.size.time_ids).reshape(len(sample), -1)
        added = torch.cat([pooled, ids.to(sample.dtype)], dim=-1)
        return self.denoise(sample, self.embed(timestep, added), context, frames=1)

    def embed(self, timestep: Tensor, added: Tensor) -> Tensor:
        """The time embedding (n, time) of timesteps (n,) and what is added (n, added)."""
        time: Tensor = self.time_embedding(sinusoid(timestep, self.size.widths[0]).to(added.dtype))
        out: Tensor = time + self.add_embedding(added)
        return out

    def denoise(self, x: Tensor, time: Tensor, context: Tensor, frames: int) -> Tensor:
        """The way down and up again."""
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x, time, context, frames, skips)
        x = self.mid_block(x, time, context, frames)
        for up in self.up_blocks:
            x = up(x, time, context, frames, skips)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class VideoUNet(UNet):
    """One denoising step of videos."""

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor, time_ids: Tensor) -> Tensor:  # type: ignore[override]
        """Predict the noise.

        Args:
            sample: latents, (videos, frames, 8, h, w), h and w multiples of 2 ** (levels - 1).
            timestep: of each video, (videos,), the logarithm of sigma over 4.
            context: embedding of the first picture, (videos, 1, context).
            time_ids: frames per second, motion and noise of the first picture, (videos, 3).

        Returns:
            (videos, frames, 4, h, w), in the sample's dtype.
        """
        videos, frames = sample.shape[:2]
        ids = sinusoid(time_ids.flatten(), self.size.time_ids).reshape(videos, -1)
        time = self.embed(timestep, ids.to(sample.dtype))
        time = time[:, None].expand(-1, frames, -1).flatten(0, 1)
        context = context[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
        return self.denoise(sample.flatten(0, 1), time, context, frames).reshape(videos, frames, 4, *sample.shape[3:])
