"""Tiny SDXL, ControlNet, AnimateDiff and Stable Video Diffusion checkpoints; made through serving.backends.ray.tiny.

The one invariant: every file has the name, format and keys of the published pipelines; only the widths are small.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.network.seeds import seeded

if TYPE_CHECKING:
    import torch
    from diffusers import (
        AutoencoderKL,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTokenizer

_TEXTS: Final = (
    "a lighthouse on a rock at dusk, long exposure, film grain",
    "two people talk in a quiet studio, warm light, shallow focus",
    "a paper boat drifts down a rainy street, close up",
    "worst quality, blurred, low contrast, watermark",
)
_WIDTH: Final = 16
"""Channels of everything."""
_SIDE_PX: Final = 64
_ADAPTER_RANK: Final = 4
_NOISE: Final[Mapping[str, object]] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's schedule."""
_SPECIAL: Final = ("<|startoftext|>", "<|endoftext|>")


@seeded(0)
def sdxl(folder: Path) -> Mapping[str, object]:
    """Stable Diffusion XL with two LoRA adapters beside it."""
    unet = _xl_unet()
    _xl_pipeline(unet).save_pretrained(folder)
    _as_published(folder)
    for seed, name in enumerate(("ink", "clay"), 1):
        _adapter(unet, folder / "adapters" / name, seed)
    return {"limits": _limits(), "options": {"steps": 4, "batch": 4}, "adapters": _adapters("ink", "clay")}


@seeded(0)
def sdxl_controlnet(folder: Path) -> Mapping[str, object]:
    """Stable Diffusion XL, and a ControlNet in a folder of its own."""
    import diffusers

    unet = _xl_unet()
    _xl_pipeline(unet).save_pretrained(folder / "base")
    _as_published(folder)
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
    _awake(control, "controlnet")
    control.save_pretrained(folder / "controlnet")
    return {
        "limits": _limits(),
        "options": {"folder": "base", "steps": 4, "batch": 4},
        "parts": {"controlnet": {"source": {"uri": "file:controlnet"}}},
    }


@seeded(0)
def animatediff(folder: Path) -> Mapping[str, object]:
    """A Stable Diffusion 1.5 with the safety checker its index names, and a motion module in a folder of its own."""
    import diffusers
    from transformers import CLIPTextModel

    tokenizer = _clip_tokenizer()
    unet = _plain_unet()
    base = diffusers.StableDiffusionPipeline(
        vae=_image_vae(),
        text_encoder=CLIPTextModel(_clip_text(len(tokenizer))),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.PNDMScheduler(**_NOISE, steps_offset=1, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    base.save_pretrained(folder / "base")
    _as_published(folder)
    index = folder / "base" / "model_index.json"
    told = json.loads(index.read_text(encoding="utf-8"))
    told |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    index.write_text(json.dumps(told, indent=2), encoding="utf-8")
    motion = diffusers.MotionAdapter(
        block_out_channels=(_WIDTH, 2 * _WIDTH),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=16,
    )
    _awake(motion, "proj_out")
    motion.save_pretrained(folder / "motion")
    return {
        "limits": _limits() | {"fps": 30},
        "options": {"folder": "base", "steps": 4, "batch": 2, "frames": 16},
        "parts": {"motion_adapter": {"source": {"uri": "file:motion"}}},
        "adapters": {},
    }


@seeded(0)
def stable_video_diffusion(folder: Path) -> Mapping[str, object]:
    """Stable Video Diffusion; its image encoder reads 224 pixels, as the pipeline's code has it."""
    import diffusers
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    unet = _motion_unet()
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(2 * _WIDTH, 2 * _WIDTH), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    vision = CLIPVisionConfig(
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=_WIDTH,
        image_size=224,
        patch_size=32,
    )
    pipeline = diffusers.StableVideoDiffusionPipeline(
        unet=unet,
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(vision),
        scheduler=diffusers.EulerDiscreteScheduler(
            **_NOISE,
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            sigma_min=0.002,
            sigma_max=700.0,
            steps_offset=1,
            use_karras_sigmas=True,
        ),
        feature_extractor=CLIPImageProcessor(size=224, crop_size=224),
    )
    pipeline.save_pretrained(folder)
    return {
        "limits": _limits() | {"fps": 30},
        "options": {"steps": 4, "frames": 8},
    }


def _motion_unet() -> "UNetSpatioTemporalConditionModel":
    """Stable Video Diffusion's; its groups of 32 are fixed in its code."""
    from diffusers import UNetSpatioTemporalConditionModel

    return UNetSpatioTemporalConditionModel(
        sample_size=_SIDE_PX // 2,
        block_out_channels=(2 * _WIDTH, 2 * _WIDTH),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1,
        num_attention_heads=(2, 4),
        transformer_layers_per_block=1,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        cross_attention_dim=_WIDTH,
        num_frames=8,
    )


def _plain_unet() -> "UNet2DConditionModel":
    """Stable Diffusion 1.5's."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=_SIDE_PX // 2,
        block_out_channels=(_WIDTH, 2 * _WIDTH),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=_WIDTH,
        norm_num_groups=8,
    )


def _limits() -> dict[str, float]:
    return {"prompt": 400, "width": 2 * _SIDE_PX, "height": 2 * _SIDE_PX, "steps": 50}


def _adapters(*names: str) -> dict[str, object]:
    return {name: {"source": {"uri": f"file:adapters/{name}"}} for name in names}


def _xl_unet() -> "UNet2DConditionModel":
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=_SIDE_PX // 2,
        block_out_channels=(_WIDTH, 2 * _WIDTH),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        cross_attention_dim=2 * _WIDTH,
        norm_num_groups=8,
    )


def _xl_pipeline(unet: "UNet2DConditionModel") -> "StableDiffusionXLPipeline":
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = _clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_image_vae(),
        text_encoder=CLIPTextModel(_clip_text(len(tokenizer))),
        text_encoder_2=CLIPTextModelWithProjection(_clip_text(len(tokenizer))),
        tokenizer=tokenizer,
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_NOISE, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def _image_vae() -> "AutoencoderKL":
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(_WIDTH, 2 * _WIDTH),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=2 * _SIDE_PX,
    )


def _clip_text(vocabulary: int) -> "CLIPTextConfig":
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=_WIDTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def _clip_tokenizer() -> "CLIPTokenizer":
    """CLIP's byte-level BPE, whose merges spell a few sentences; reads 77 tokens like the published one.

    Not trained: tokenizers' trainer breaks ties in another order each time.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    merges = list(_merges(" ".join(_TEXTS).replace(",", "").split()))
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *_SPECIAL]))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _merges(words: list[str]) -> dict[tuple[str, str], None]:
    """Pairs that put each word together from its first letter on, those of earlier words first."""
    found: dict[tuple[str, str], None] = {}
    for word in words:
        head, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for letter in rest:
            found[head, letter] = None
            head += letter
    return found


def _as_published(folder: Path) -> None:
    """Keep tokenizers as the published checkpoints have them: ``vocab.json`` and ``merges.txt``."""
    for path in folder.rglob("tokenizer.json"):
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        path.with_name("vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
        path.with_name("merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.unlink()


def _awake(module: "torch.nn.Module", *names: str) -> None:
    """Give layers that start at zero some weight, so that what they do can be seen."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if any(part in name for part in names):
                parameter.normal_(std=0.2)


def _adapter(unet: "UNet2DConditionModel", folder: Path, seed: int) -> None:
    """A LoRA of the UNet's attention in the format that diffusers' training scripts write."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            outs, ins = module.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(_ADAPTER_RANK, ins, generator=random) * 0.3
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(outs, _ADAPTER_RANK, generator=random) * 0.3
    folder.mkdir(parents=True)
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
