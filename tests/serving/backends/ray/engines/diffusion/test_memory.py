"""Memory savers: decided from the card and the share, and turned on without changing much of the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.backends.ray.engines.diffusion.memory import decide, turn_on
from serving.backends.ray.engines.network.switches import Switches
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.repository.model import Memory
from serving.weights.safetensors_files import TensorInfo

MIB = 1 << 20
PARTS = {
    "unet": {"a": TensorInfo("F16", (1024, 1024, 6), 0, 0)},
    "vae": {"b": TensorInfo("F32", (1024, 1024), 0, 0), "scalar": TensorInfo("F32", (), 0, 0)},
}
"""14 MiB of weights with two bytes each, 12 of them in the UNet."""


@pytest.mark.parametrize(
    ("share_mib", "wanted"),
    [
        (None, Switches()),
        (30, Switches()),
        (21, Switches(vae_slicing=True, vae_tiling=True)),
        (18, Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True)),
        (16, Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True, offload="model")),
        (10, Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True, offload="sequential")),
    ],
)
def test_the_share_decides(share_mib: int | None, wanted: Switches) -> None:
    memory = Memory(weights_mib=14, peak_mib=30, measured_on="a test")
    assert decide(PARTS, 2, memory, share_mib and share_mib * MIB) == wanted


def test_without_a_measurement_the_weights_tell_the_peak() -> None:
    assert decide(PARTS, 2, None, int(14 * 1.6 * MIB) + 10) == Switches()
    assert decide(PARTS, 2, None, 20 * MIB) != Switches()


def test_savers_leave_the_picture_what_it_was() -> None:
    before = picture(loaded())
    pipeline = loaded()
    turn_on(pipeline, Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True), "cpu")
    assert pipeline.vae.use_slicing
    assert pipeline.vae.use_tiling
    assert "Sliced" in type(next(iter(pipeline.unet.attn_processors.values()))).__name__
    assert np.abs(picture(pipeline) - before).max() < 0.05


def loaded() -> Any:
    from diffusers import StableDiffusionXLPipeline

    folder: Path = tiny_checkpoint("sdxl")
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline: Any) -> np.ndarray:
    seed = torch.Generator().manual_seed(1)
    made = pipeline("rain", width=64, height=64, num_inference_steps=2, generator=seed, output_type="np")
    return np.asarray(made.images[0])
