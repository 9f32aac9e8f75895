"""The networks of bench/gpu are the published ones: diffusers' own classes load into them, and say the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.gpu.cogvideox import COGVIDEOX_2B, TINY_COGVIDEOX, CogConfig, CogVideoX
from bench.gpu.unet import SDXL, SVD, TINY_SDXL, TINY_SVD, UNet, UNetConfig, VideoUNet

MILLION = 1_000_000
PUBLISHED = {"sdxl": 2567.46, "svd": 1524.62, "cogvideox": 1693.78}
"""Millions of parameters, counted in diffusers' classes at the sizes of the published configurations."""


def diffusers_sdxl(size: UNetConfig) -> nn.Module:
    from diffusers import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in size.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(size.depths)]
    return UNet2DConditionModel(
        in_channels=size.inputs,
        block_out_channels=size.widths,
        attention_head_dim=size.heads,
        transformer_layers_per_block=[max(depth, 1) for depth in size.depths],
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=size.context,
        addition_embed_type="text_time",
        addition_time_embed_dim=size.time_ids,
        projection_class_embeddings_input_dim=size.added,
        use_linear_projection=True,
    )


def diffusers_svd(size: UNetConfig) -> nn.Module:
    from diffusers import UNetSpatioTemporalConditionModel

    down = ["CrossAttnDownBlockSpatioTemporal" if depth else "DownBlockSpatioTemporal" for depth in size.depths]
    up = ["CrossAttnUpBlockSpatioTemporal" if depth else "UpBlockSpatioTemporal" for depth in reversed(size.depths)]
    return UNetSpatioTemporalConditionModel(
        down_block_types=down,
        up_block_types=up,
        block_out_channels=size.widths,
        num_attention_heads=size.heads,
        addition_time_embed_dim=size.time_ids,
        projection_class_embeddings_input_dim=size.added,
        cross_attention_dim=size.context,
    )


def diffusers_cogvideox(size: CogConfig) -> nn.Module:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        in_channels=size.channels,
        out_channels=size.channels,
        time_embed_dim=size.time,
        text_embed_dim=size.text,
        num_layers=size.layers,
        sample_width=size.columns,
        sample_height=size.rows,
        sample_frames=4 * (size.frames - 1) + 1,
        max_text_seq_length=size.words,
    )


FAMILIES = {
    "sdxl": (UNet, diffusers_sdxl, SDXL, TINY_SDXL),
    "svd": (VideoUNet, diffusers_svd, SVD, TINY_SVD),
    "cogvideox": (CogVideoX, diffusers_cogvideox, COGVIDEOX_2B, TINY_COGVIDEOX),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_network_has_diffusers_parameters_by_name_and_shape(family: str) -> None:
    ours, theirs, full, _ = FAMILIES[family]
    with torch.device("meta"):
        mine, published = ours(full), theirs(full)
    assert {name: tensor.shape for name, tensor in mine.named_parameters()} == {
        name: tensor.shape for name, tensor in published.named_parameters()
    }
    assert sum(each.numel() for each in mine.parameters()) / MILLION == pytest.approx(PUBLISHED[family], abs=0.01)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def moved(theirs: nn.Module, ours: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both with the same weights, none of which is what it began as; float64 tells rounding from faults."""
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    ours.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if "pos_embedding" not in name})
    return theirs.double().eval(), ours.double().eval()


def of_sdxl(theirs: nn.Module, ours: nn.Module) -> tuple[Tensor, Tensor]:
    sample, timestep = randn(2, 4, 16, 24), torch.tensor([3.0, 801.0])
    context = randn(2, 7, TINY_SDXL.context)
    pooled, ids = randn(2, TINY_SDXL.added - 6 * TINY_SDXL.time_ids), 100 * torch.rand(2, 6)
    added = {"text_embeds": pooled, "time_ids": ids}
    told = theirs(sample, timestep, context, added_cond_kwargs=added).sample
    return told, ours(sample, timestep, context, pooled, ids)


def of_svd(theirs: nn.Module, ours: nn.Module) -> tuple[Tensor, Tensor]:
    sample, timestep = randn(2, 5, 8, 8, 12), torch.tensor([-0.7, 1.6])
    context, ids = randn(2, 1, TINY_SVD.context), 100 * torch.rand(2, 3)
    return theirs(sample, timestep, context, ids).sample, ours(sample, timestep, context, ids)


def of_cogvideox(theirs: nn.Module, ours: nn.Module) -> tuple[Tensor, Tensor]:
    size = TINY_COGVIDEOX
    latents = randn(2, size.frames, size.channels, size.rows, size.columns)
    text, timestep = randn(2, size.words, size.text), torch.tensor([3.0, 801.0])
    return theirs(latents, text, timestep).sample, ours(latents, text, timestep)


@pytest.mark.parametrize(
    ("family", "run"), [("sdxl", of_sdxl), ("svd", of_svd), ("cogvideox", of_cogvideox)], ids=list(FAMILIES)
)
def test_a_tiny_network_says_what_diffusers_says_with_the_same_weights(
    family: str, run: Callable[[nn.Module, nn.Module], tuple[Tensor, Tensor]]
) -> None:
    ours, theirs, _, tiny = FAMILIES[family]
    torch.manual_seed(7)
    both = moved(theirs(tiny), ours(tiny))
    with torch.no_grad():
        told, said = run(*both)
    assert said.shape == told.shape
    assert (said - told).abs().max() < 1e-6 * told.abs().max()
