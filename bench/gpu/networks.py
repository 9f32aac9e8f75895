"""What is measured: five networks of the studio at full size, and the same tiny; read by bench.gpu's workers.

The one invariant: weights are random but seeded, and inputs have the shapes and ranges that the pipelines give them.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from bench.gpu import memory
from bench.gpu.cogvideox import COGVIDEOX_2B, TINY_COGVIDEOX, CogConfig, CogVideoX
from bench.gpu.unet import SDXL, SVD, TINY_SDXL, TINY_SVD, UNet, UNetConfig, VideoUNet

NAMES: Final = ("sdxl", "svd", "cogvideox", "whisper", "vocoder")
SEED: Final = 20_260_101
UPSAMPLING: Final = (4, 4, 4, 4)
"""Of SpeechT5's HiFi-GAN: 256 samples per frame at 16 kHz."""


class Network(NamedTuple):
    """One network at one size.

    Args:
        name: as in :data:`NAMES`.
        title: what people call it.
        item: what a batch counts, with its size.
        build: makes it, on torch's default device, in float32.
        inputs: makes the inputs of a batch, on torch's default device, in float32.
        activations: estimates the elements alive at once, of a batch.
        batch: where all precisions are compared: a denoiser's is 2, for the prompt and for none.
        batches: of the curve.
        regions: names of the classes that are compiled, each once for all its places; none for the whole network.
    """

    name: str
    title: str
    item: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    activations: Callable[[int], int]
    batch: int
    batches: tuple[int, ...]
    regions: tuple[str, ...]


class WhisperEncoder(nn.Module):
    """transformers' encoder, which answers with a tensor."""

    def __init__(self, width: int, layers: int, heads: int, positions: int, mels: int) -> None:
        super().__init__()
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Encoder

        config = WhisperConfig(
            d_model=width,
            encoder_layers=layers,
            encoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            max_source_positions=positions,
            num_mel_bins=mels,
            attn_implementation="sdpa",
        )
        self.encoder = Encoder(config)

    def forward(self, features: Tensor) -> Tensor:
        """Encode log-mel features (windows, mels, 2 * positions): (windows, positions, width)."""
        out: Tensor = self.encoder(features).last_hidden_state
        return out


def vocoder(channels: int) -> nn.Module:
    """SpeechT5's HiFi-GAN: log-mel spectrograms (clips, frames, 80) to samples (clips, 256 * frames)."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    made: nn.Module = SpeechT5HifiGan(SpeechT5HifiGanConfig(upsample_initial_channel=channels))
    # transformers' weights of 0.01 leave 1e-9 of a sound, which no 16-bit format holds; torch's own keep its size.
    for module in made.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
    return made


def sdxl_inputs(config: UNetConfig, rows: int, words: int, batch: int) -> tuple[Tensor, ...]:
    """A square picture in the middle of its steps."""
    ids = 8.0 * rows
    return (
        torch.randn(batch, config.inputs, rows, rows),
        torch.full((batch,), 500.0),
        torch.randn(batch, words, config.context),
        torch.randn(batch, config.added - 6 * config.time_ids),
        torch.tensor([[ids, ids, 0.0, 0.0, ids, ids]]).repeat(batch, 1),
    )


def svd_inputs(config: UNetConfig, frames: int, rows: int, columns: int, batch: int) -> tuple[Tensor, ...]:
    """A video in the middle of its steps: 7 frames a second, motion 127, noise 0.02, as the pipeline's defaults are."""
    return (
        torch.randn(batch, frames, config.inputs, rows, columns),
        torch.full((batch,), 0.25),
        torch.randn(batch, 1, config.context),
        torch.tensor([[6.0, 127.0, 0.02]]).repeat(batch, 1),
    )


def cogvideox_inputs(size: CogConfig, batch: int) -> tuple[Tensor, ...]:
    """A video in the middle of its steps."""
    return (
        torch.randn(batch, size.frames, size.channels, size.rows, size.columns),
        torch.randn(batch, size.words, size.text),
        torch.full((batch,), 500.0),
    )


def noise(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Of a batch, one input of standard normal numbers."""
    return lambda batch: (torch.randn(batch, *shape),)


def network(name: str, *, tiny: bool = False) -> Network:
    """One of :data:`NAMES`."""
    return {"sdxl": sdxl, "svd": svd, "cogvideox": cogvideox, "whisper": whisper, "vocoder": hifigan}[name](tiny)


def sdxl(tiny: bool) -> Network:
    """SDXL's UNet for pictures of 1024x1024."""
    config, rows, words = (TINY_SDXL, 16, 7) if tiny else (SDXL, 128, 77)
    return Network(
        name="sdxl",
        title="SDXL UNet",
        item=f"{8 * rows}x{8 * rows} picture",
        build=partial(UNet, config),
        inputs=partial(sdxl_inputs, config, rows, words),
        activations=lambda batch: memory.unet_activations(config, batch, rows * rows),
        batch=2,
        batches=(1, 2) if tiny else (1, 2, 4, 8, 16),
        regions=("Resnet", "TransformerBlock"),
    )


def svd(tiny: bool) -> Network:
    """SVD's UNet for 14 frames of 1024x576."""
    config, frames, rows, columns = (TINY_SVD, 3, 8, 16) if tiny else (SVD, 14, 72, 128)
    return Network(
        name="svd",
        title="SVD UNet",
        item=f"{frames} frames of {8 * columns}x{8 * rows}",
        build=partial(VideoUNet, config),
        inputs=partial(svd_inputs, config, frames, rows, columns),
        activations=lambda batch: memory.unet_activations(config, batch * frames, rows * columns),
        batch=2,
        batches=(1, 2) if tiny else (1, 2, 4),
        regions=("SpatioTemporalResnet", "TransformerBlock", "TemporalBlock"),
    )


def cogvideox(tiny: bool) -> Network:
    """CogVideoX-2B's transformer for 49 frames of 720x480."""
    size = TINY_COGVIDEOX if tiny else COGVIDEOX_2B
    return Network(
        name="cogvideox",
        title="CogVideoX-2B transformer",
        item=f"{4 * (size.frames - 1) + 1} frames of {8 * size.columns}x{8 * size.rows}",
        build=partial(CogVideoX, size),
        inputs=partial(cogvideox_inputs, size),
        activations=partial(memory.cogvideox_activations, size),
        batch=2,
        batches=(1, 2) if tiny else (1, 2, 4),
        regions=("CogBlock",),
    )


def whisper(tiny: bool) -> Network:
    """Whisper large-v3's encoder for windows of 30 seconds."""
    width, layers, heads, positions, mels = (64, 2, 2, 50, 16) if tiny else (1280, 32, 20, 1500, 128)
    return Network(
        name="whisper",
        title="Whisper large-v3 encoder",
        item=f"{positions / 50:g} s window",
        build=partial(WhisperEncoder, width, layers, heads, positions, mels),
        inputs=noise(mels, 2 * positions),
        activations=partial(memory.whisper_activations, width, positions),
        batch=1,
        batches=(1, 2) if tiny else (1, 2, 4, 8, 16, 32),
        regions=("WhisperEncoderLayer",),
    )


def hifigan(tiny: bool) -> Network:
    """SpeechT5's vocoder for 10 seconds of speech."""
    channels, frames = (32, 10) if tiny else (512, 625)
    return Network(
        name="vocoder",
        title="SpeechT5 HiFi-GAN",
        item=f"{frames / 62.5:g} s clip",
        build=partial(vocoder, channels),
        inputs=noise(frames, 80),
        activations=partial(memory.vocoder_activations, channels, UPSAMPLING, frames),
        batch=1,
        batches=(1, 2) if tiny else (1, 2, 4, 8, 16, 32),
        regions=(),
    )
