"""Layers of diffusion UNets, as Stable Diffusion XL and Stable Video Diffusion have them; used by bench.gpu.unet.

The one invariant: parameters have the names and shapes of diffusers' classes, so a checkpoint of those loads strictly.
What is left out changes no result: dropout of zero, gradient checkpointing, masks and adapters.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that torch's users know

GROUPS: Final = 32


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of positions at frequencies from 1 down to 1/10000.

    Args:
        positions: of any number type, shape (n,).
        width: even number of channels.

    Returns:
        float32, shape (n, width).
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=positions.device) / half
    angles = positions[:, None].float() * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers around SiLU: (n, width) to (n, out)."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, out or hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        embedded: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return embedded


class Resnet(nn.Module):
    """Two 3x3 convolutions with the time embedding between them: (n, before, h, w) to (n, after, h, w)."""

    def __init__(self, before: int, after: int, time: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, before, eps=eps)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, after)
        self.norm2 = nn.GroupNorm(GROUPS, after, eps=eps)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else None

    def forward(self, x: Tensor, time: Tensor, frames: int = 1) -> Tensor:
        """Take the time embedding (n, time); frames are of no concern here."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        out: Tensor = x + hidden
        return out


class Attention(nn.Module):
    """Attention of x (n, tokens, width) to itself or to a context (n, words, context)."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend."""
        source = x if context is None else context
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return out


class Geglu(nn.Module):
    """A linear layer to twice the width, whose second half gates the first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Gate."""
        values, gate = self.proj(x).chunk(2, dim=-1)
        gated: Tensor = values * F.gelu(gate)
        return gated


class FeedForward(nn.Module):
    """Width to four times the width, gated, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The place in the middle is dropout's, whose number the names of the others count.
        self.net = nn.ModuleList([Geglu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Feed forward."""
        out: Tensor = self.net[2](self.net[0](x))
        return out


class TransformerBlock(nn.Module):
    """Attention to itself, to the context, and feed-forward, each around a residual: keeps (n, tokens, width)."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Run the three."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of each picture: keeps (n, width, h, w)."""

    def __init__(self, width: int, heads: int, depth: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, context) for _ in range(depth)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, frames: int = 1) -> Tensor:
        """Take the context (n, words, context); frames are of no concern here."""
        hidden = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            hidden = block(hidden, context)
        out: Tensor = x + self.proj_out(hidden).transpose(1, 2).reshape(x.shape)
        return out


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shrink."""
        smaller: Tensor = self.conv(x)
        return smaller


class Upsample(nn.Module):
    """Twice the height and width, by the nearest pixel and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Grow."""
        larger: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return larger
