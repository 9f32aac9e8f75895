"""Layers of Stable Video Diffusion that look along time, over those of bench.gpu.layers; used by bench.gpu.unet.

The one invariant: parameters have the names and shapes of diffusers' classes. Pictures of one
video lie one after another in the batch, so n is videos times frames everywhere. There are no picture-only batches: the
indicator of those is always 0 in the pipeline.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from bench.gpu.layers import GROUPS, Attention, FeedForward, Resnet, TimeEmbedding, TransformerBlock, sinusoid


class Mixer(nn.Module):
    """A learned share of what space says, the rest of what time says."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def forward(self, of_space: Tensor, of_time: Tensor) -> Tensor:
        """Mix two tensors of one shape."""
        share = self.mix_factor.sigmoid().to(of_space.dtype)
        return share * of_space + (1.0 - share) * of_time


class TemporalResnet(nn.Module):
    """Two convolutions over three frames: keeps (videos, width, frames, h, w)."""

    def __init__(self, width: int, time: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width, eps=eps)
        self.conv1 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))
        self.time_emb_proj = nn.Linear(time, width)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=eps)
        self.conv2 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Take the time embedding (videos, frames, time)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(time)).transpose(1, 2)[..., None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        out: Tensor = x + hidden
        return out


class SpatioTemporalResnet(nn.Module):
    """A residual block per picture, one along time, and their mixture: (n, before, h, w) to (n, after, h, w)."""

    def __init__(self, before: int, after: int, time: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = Resnet(before, after, time, eps)
        self.temporal_res_block = TemporalResnet(after, time, eps)
        self.time_mixer = Mixer()

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """Take the time embedding (n, time)."""
        x = self.spatial_res_block(x, time)
        video = torch.unflatten(x, 0, (-1, frames)).transpose(1, 2)
        moved = self.temporal_res_block(video, torch.unflatten(time, 0, (-1, frames)))
        mixed: Tensor = self.time_mixer(video, moved)
        return mixed.transpose(1, 2).flatten(0, 1)


class TemporalBlock(nn.Module):
    """A transformer block over the frames of each pixel: keeps (n, pixels, width)."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.ff_in = FeedForward(width)
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, frames: int) -> Tensor:
        """Take the context (videos * pixels, words, context)."""
        pixels = x.shape[1]
        x = torch.unflatten(x, 0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        x = x + self.ff(self.norm3(x))
        return torch.unflatten(x, 0, (-1, pixels)).transpose(1, 2).flatten(0, 1)


class SpatioTemporalTransformer(nn.Module):
    """Blocks over the pixels of a picture, each with one over the frames: keeps (n, width, h, w)."""

    def __init__(self, width: int, heads: int, depth: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context) for _ in range(depth)])
        self.temporal_transformer_blocks = nn.ModuleList([TemporalBlock(width, heads, context) for _ in range(depth)])
        self.time_pos_embed = TimeEmbedding(width, 4 * width, width)
        self.time_mixer = Mixer()
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, frames: int) -> Tensor:
        """Take the context (n, words, context), of which time sees that of a video's first picture."""
        pixels = x.shape[2] * x.shape[3]
        first = torch.unflatten(context, 0, (-1, frames))[:, 0]
        of_video = first[:, None].expand(-1, pixels, -1, -1).flatten(0, 1)
        hidden = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        numbers = torch.arange(frames, device=x.device)
        places = self.time_pos_embed(sinusoid(numbers, x.shape[1]).to(x.dtype))
        places = places.repeat(x.shape[0] // frames, 1)[:, None]
        for block, along_time in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            hidden = block(hidden, context)
            hidden = self.time_mixer(hidden, along_time(hidden + places, of_video, frames))
        out: Tensor = x + self.proj_out(hidden).transpose(1, 2).reshape(x.shape)
        return out
