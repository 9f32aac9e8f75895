"""Estimates of the memory that a network needs, from its sizes alone; compared with the allocator's peak by bench.gpu.

    peak = weights + inputs + bytes per element * activations

The one invariant: activations are the most elements alive at once while nothing needs a gradient, counted by hand below
in the code of the networks. Left out are workspaces of cuDNN and cuBLAS and the allocator's rounding, so what is
measured lies above by those; attention is fused, so no tokens-by-tokens matrix is ever kept.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from torch import nn

from bench.gpu.cogvideox import CogConfig
from bench.gpu.unet import LAYERS, UNetConfig, up_sizes

MIB: Final = 2**20
GATED: Final = 20
"""Widths per token at the gate of a UNet's feed-forward: the input of the transformer, of the block and of this part,
what was normed, 8 of the projection, 4 of the GELU and 4 of the product."""
GATED_IN_TIME: Final = 21
"""The same along time, where the picture's tokens wait beside those with places added."""
COG_TOKENS: Final = 13
"""Widths per token at the GELU of CogVideoX: the block's input, after attention, attention's own, normed, joined, and 4
before and after the GELU."""
WHISPER_TOKENS: Final = 12
"""Widths per token at the GELU of Whisper: what came before the layers, the layer's input, after attention, normed, and
4 before and after the GELU."""
VOCODER_SAMPLES: Final = 5
"""Tensors at once in the last residual blocks of HiFi-GAN: their input, the sum so far, the residual, and what goes
into and comes out of a convolution."""


def weights_bytes(network: nn.Module) -> int:
    """All parameters and buffers."""
    return sum(tensor.nbytes for tensors in (network.parameters(), network.buffers()) for tensor in tensors)


def skips_of(config: UNetConfig, pixels: int) -> list[int]:
    """Elements of what the way down leaves for the way up, per picture, in the order it does."""
    kept = [config.widths[0] * pixels]
    for level, width in enumerate(config.widths):
        here = pixels >> (2 * level)
        kept += [width * here] * LAYERS
        if level < len(config.widths) - 1:
            kept.append(width * (here >> 2))
    return kept


def unet_stages(config: UNetConfig, pixels: int) -> Iterator[int]:
    """Elements alive per picture in each stage of the way up, where the most are.

    A stage keeps the skips that are still to come and what came up to its level, and works on one of: the norm of the
    joined input (the input before it was joined, itself, normed, activated), the feed-forward of a transformer, or the
    doubling of height and width (1 + 4 + 4 pictures).
    """
    skips = skips_of(config, pixels)
    for level in reversed(range(len(config.widths))):
        width, here = config.widths[level], pixels >> (2 * level)
        came = here * config.widths[min(level + 1, len(config.widths) - 1)]
        for number, (before, after) in enumerate(up_sizes(config.widths, level)):
            skips.pop()
            yield sum(skips) + came + here * (3 * before + (width if number else 0))
            if config.depths[level]:
                yield sum(skips) + came + here * (GATED_IN_TIME if config.video else GATED) * after
        if level:
            yield sum(skips) + came + 9 * width * here


def unet_activations(config: UNetConfig, pictures: int, pixels: int) -> int:
    """Elements alive at once in a UNet: of as many pictures, each of so many latent pixels."""
    return pictures * max(unet_stages(config, pixels))


def cogvideox_activations(size: CogConfig, videos: int) -> int:
    """Elements alive at once in CogVideoX."""
    return videos * COG_TOKENS * size.tokens * size.width


def whisper_activations(width: int, positions: int, windows: int) -> int:
    """Elements alive at once in Whisper's encoder: of as many windows of 30 seconds."""
    return windows * WHISPER_TOKENS * positions * width


def vocoder_activations(channels: int, rates: Sequence[int], frames: int, clips: int) -> int:
    """Elements alive at once in HiFi-GAN: channels halve with every upsampling, the length grows by its rate."""
    most, length = 0, frames
    for number, rate in enumerate(rates, start=1):
        length *= rate
        most = max(most, (channels >> number) * length)
    return clips * VOCODER_SAMPLES * most
