"""Medium models for bench.parts: the tiny ones, with one network each at a size where its products are worth something.

The one invariant: all but that network is the tiny model's own, so its requests, tokens and pictures stay small, and a
network's interface to the others stays as it was.

Sizes are published ones where there are some that suit two cores: Whisper tiny's (openai/whisper-tiny) and those of
opus-mt; four tenths of Stable Diffusion XL's widths; a sixth of CogVideoX-2B's layers at a quarter of its width.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import yaml

from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.repository.model import Model
from serving.repository.read import CARD_FILE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

GAIN: Final = 1.5
"""Weights are drawn so that a layer keeps about the size of what comes in; smaller ones make every answer the same."""


def medium_model_folder(model: Model, into: Path) -> Path:
    """Write ``<into>/<name>_medium``: a model's folder with its medium checkpoint beside it.

    Args:
        model: as the repository has it, one of :data:`MEDIUM`.
        into: a folder of models.
    """
    tiny = tiny_model_folder(model, into / ".tiny")
    card = yaml.safe_load((tiny / CARD_FILE).read_text(encoding="utf-8"))
    checkpoint = into / ".checkpoints" / model.name
    shutil.copytree(card["source"]["uri"].removeprefix("file:"), checkpoint)
    with seeded(3):
        MEDIUM[model.name].widen(checkpoint)
    card |= {"adapters": {}, "source": {"uri": f"file:{checkpoint}", "revision": "medium"}}
    folder = into / f"{model.name}_medium"
    shutil.copytree(tiny, folder)
    (folder / CARD_FILE).write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder


def draw(network: "nn.Module") -> None:
    """Random weights by which answers vary with what comes in."""
    from torch.nn import init

    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            init.normal_(parameter, std=GAIN / parameter[0].numel() ** 0.5)
        elif "norm" not in name:
            init.normal_(parameter, std=0.1)


def picture_unet(folder: Path) -> None:
    """Stable Diffusion XL's UNet of 100 million parameters."""
    from diffusers import UNet2DConditionModel

    widths = (128, 256, 512)
    config = UNet2DConditionModel.load_config(folder / "unet") | {
        "block_out_channels": widths,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": tuple(width // 64 for width in widths),
        "norm_num_groups": 32,
    }
    network = UNet2DConditionModel.from_config(config)
    draw(network)
    network.save_pretrained(folder / "unet")


def clip_transformer(folder: Path) -> None:
    """CogVideoX's transformer of 20 million parameters."""
    from diffusers import CogVideoXTransformer3DModel

    config = CogVideoXTransformer3DModel.load_config(folder / "transformer")
    network = CogVideoXTransformer3DModel.from_config(
        config | {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 5, "time_embed_dim": 256}
    )
    draw(network)
    network.save_pretrained(folder / "transformer")


def recogniser(folder: Path) -> None:
    """Whisper tiny's network of 37 million parameters, but for the vocabulary."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    _of_transformers(folder, WhisperConfig, WhisperForConditionalGeneration, width=384, layers=4, heads=6)


def translator(folder: Path) -> None:
    """An opus-mt network of 44 million parameters, but for the vocabulary."""
    from transformers import MarianConfig, MarianMTModel

    _of_transformers(folder, MarianConfig, MarianMTModel, width=512, layers=6, heads=8)


def _of_transformers(
    folder: Path,
    config: "type[PretrainedConfig]",
    network: "type[PreTrainedModel]",
    *,
    width: int,
    layers: int,
    heads: int,
) -> None:
    from transformers import GenerationConfig

    sizes = {"d_model": width}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": layers, f"{part}_attention_heads": heads, f"{part}_ffn_dim": 4 * width}
    made = network(config.from_pretrained(folder, **sizes)).eval()
    draw(made)
    made.generation_config = GenerationConfig.from_pretrained(folder)
    made.save_pretrained(folder)


class Medium(NamedTuple):
    """What puts the larger network into a copy of a tiny checkpoint, and the parts that are of it."""

    widen: Callable[[Path], None]
    parts: Sequence[str]


MEDIUM: Final[Mapping[str, Medium]] = {
    "opus_mt_en_hi": Medium(translator, ("encoder", "decoder")),
    "sdxl": Medium(picture_unet, ("unet",)),
    "whisper_transformers": Medium(recogniser, ("encoder", "decoder")),
    "cogvideox_2b": Medium(clip_transformer, ("transformer",)),
}
"""By the model."""
