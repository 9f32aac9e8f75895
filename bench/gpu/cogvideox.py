"""The transformer of CogVideoX at any size; built by bench.gpu.networks.

The one invariant: with :data:`COGVIDEOX_2B` this is the published architecture, parameter for parameter
(THUDM/CogVideoX-2b, `transformer/config.json`): sinusoids for places, no rotary embedding.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from bench.gpu.layers import TimeEmbedding, sinusoid

SPACE_SCALE: Final = 1.875
"""Places in space are divided by it (`spatial_interpolation_scale`)."""


class CogConfig(NamedTuple):
    """The transformer's size.

    Args:
        width: channels of a token, a multiple of 16 and of heads.
        heads: attention heads.
        layers: blocks.
        text: width of the text embedding.
        time: width of the time embedding.
        channels: of the latents.
        words: tokens of the text.
        frames: latent frames.
        rows: of the latents, even.
        columns: of the latents, even.
    """

    width: int
    heads: int
    layers: int
    text: int
    time: int
    channels: int
    words: int
    frames: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """Tokens of the text and the video together."""
        return self.words + self.frames * (self.rows // 2) * (self.columns // 2)


COGVIDEOX_2B: Final = CogConfig(1920, 30, 30, 4096, 512, 16, words=226, frames=13, rows=60, columns=90)
TINY_COGVIDEOX: Final = CogConfig(64, 4, 2, 32, 32, 16, words=8, frames=3, rows=8, columns=12)


def places_1d(width: int, places: Tensor) -> Tensor:
    """Sines, then cosines, of places (n,) at frequencies from 1 down to 1/10000: float64 (n, width)."""
    omega = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64, device=places.device) / (width / 2.0))
    angles = torch.outer(places.double(), omega)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def places_3d(size: CogConfig) -> Tensor:
    """Embeddings of all video tokens, float32 (frames * h/2 * w/2, width): a quarter for time, the rest for space.

    Of space, the first half is of the column and the second of the row, as diffusers has it.
    """
    rows, columns = size.rows // 2, size.columns // 2
    space, time = 3 * size.width // 4, size.width // 4
    of_column = places_1d(space // 2, torch.arange(columns) / SPACE_SCALE)
    of_row = places_1d(space // 2, torch.arange(rows) / SPACE_SCALE)
    of_frame = places_1d(time, torch.arange(size.frames))
    grid = (size.frames, rows, columns, -1)
    parts = (of_frame[:, None, None], of_column[None, None, :], of_row[None, :, None])
    return torch.cat([part.expand(*grid) for part in parts], dim=-1).flatten(0, 2).float()


class PatchEmbed(nn.Module):
    """Text and 2x2 patches of latents as tokens, with their places."""

    def __init__(self, size: CogConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(size.channels, size.width, 2, stride=2)
        self.text_proj = nn.Linear(size.text, size.width)
        self.register_buffer("places", places_3d(size), persistent=False)

    def forward(self, text: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the video and of the text."""
        videos = len(latents)
        patches = torch.unflatten(self.proj(latents.flatten(0, 1)), 0, (videos, -1))
        patches = patches.flatten(3).transpose(2, 3).flatten(1, 2)
        return patches + self.get_buffer("places").to(patches.dtype), self.text_proj(text)


class NormZero(nn.Module):
    """A norm whose scale, shift and gate the time embedding gives, apart for video and text."""

    def __init__(self, time: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time, 6 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, video: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normed video and text, and their gates (videos, 1, width)."""
        told = self.linear(F.silu(time))[:, None].chunk(6, dim=-1)
        shift, scale, gate, text_shift, text_scale, text_gate = told
        video = self.norm(video) * (1 + scale) + shift
        text = self.norm(text) * (1 + text_scale) + text_shift
        return video, text, gate, text_gate


class JointAttention(nn.Module):
    """Attention of all tokens to all, with normed queries and keys: keeps (videos, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q = nn.LayerNorm(width // heads, eps=1e-6)
        self.norm_k = nn.LayerNorm(width // heads, eps=1e-6)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(x), self.to_v(x))
        )
        attended = F.scaled_dot_product_attention(self.norm_q(query), self.norm_k(key), value)
        out: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return out


class Gelu(nn.Module):
    """A linear layer and GELU by tanh."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Run both."""
        return F.gelu(self.proj(x), approximate="tanh")


class CogFeedForward(nn.Module):
    """Width to four times the width and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The place in the middle is dropout's, whose number the names of the others count.
        self.net = nn.ModuleList([Gelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Feed forward."""
        out: Tensor = self.net[2](self.net[0](x))
        return out


class CogBlock(nn.Module):
    """Joint attention and feed-forward, each gated by the time embedding."""

    def __init__(self, size: CogConfig) -> None:
        super().__init__()
        self.norm1 = NormZero(size.time, size.width)
        self.attn1 = JointAttention(size.width, size.heads)
        self.norm2 = NormZero(size.time, size.width)
        self.ff = CogFeedForward(size.width)

    def forward(self, video: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The next video and text tokens."""
        words = text.shape[1]
        normed, normed_text, gate, text_gate = self.norm1(video, text, time)
        attended = self.attn1(torch.cat([normed_text, normed], dim=1))
        video = video + gate * attended[:, words:]
        text = text + text_gate * attended[:, :words]
        normed, normed_text, gate, text_gate = self.norm2(video, text, time)
        fed = self.ff(torch.cat([normed_text, normed], dim=1))
        return video + gate * fed[:, words:], text + text_gate * fed[:, :words]


class NormOut(nn.Module):
    """The last norm, shifted and scaled by the time embedding."""

    def __init__(self, time: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Norm."""
        shift, scale = self.linear(F.silu(time))[:, None].chunk(2, dim=-1)
        normed: Tensor = self.norm(x) * (1 + scale) + shift
        return normed


class CogVideoX(nn.Module):
    """One denoising step of videos."""

    def __init__(self, size: CogConfig) -> None:
        super().__init__()
        self.size = size
        self.patch_embed = PatchEmbed(size)
        self.time_embedding = TimeEmbedding(size.width, size.time)
        self.transformer_blocks = nn.ModuleList([CogBlock(size) for _ in range(size.layers)])
        self.norm_final = nn.LayerNorm(size.width)
        self.norm_out = NormOut(size.time, size.width)
        self.proj_out = nn.Linear(size.width, 4 * size.channels)

    def forward(self, latents: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            latents: (videos, frames, channels, h, w), as the size says.
            text: embedding, (videos, words, text).
            timestep: of each video, (videos,), 0 to 1000.

        Returns:
            (videos, frames, channels, h, w), in the latents' dtype.
        """
        time = self.time_embedding(sinusoid(timestep, self.size.width).to(latents.dtype))
        video, words = self.patch_embed(text, latents)
        for block in self.transformer_blocks:
            video, words = block(video, words, time)
        tokens = self.proj_out(self.norm_out(self.norm_final(video), time))
        rows, columns = self.size.rows // 2, self.size.columns // 2
        patches = tokens.reshape(len(latents), self.size.frames, rows, columns, self.size.channels, 2, 2)
        out: Tensor = patches.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        return out
