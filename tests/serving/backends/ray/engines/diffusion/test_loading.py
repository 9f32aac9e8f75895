"""Checkpoints that do not fit are named in one line when a pipeline is loaded; whole ones load without the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.backends.base import EngineContext
from serving.backends.ray.engines import load_engine
from serving.backends.ray.engines.diffusion.loading import read_index, read_tensors
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput
from serving.repository.model import Model, Source
from tests.servers.tiny import changed, context_in, tiny_model

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of SDXL's tiny checkpoint, to be spoiled."""
    folder = tmp_path / "spoiled"
    shutil.copytree(tiny_checkpoint("sdxl"), folder)
    return folder


def model_of(folder: Path) -> Model:
    return changed(tiny_model("sdxl"), source=Source(uri=f"file:{folder}"), adapters={})


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def configured(folder: Path, name: str, key: str, value: object) -> None:
    path = folder / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / UNET), (folder / UNET).with_suffix(".bin"))
    (folder / UNET).unlink()


def with_class(folder: Path, pair: list[str]) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unet": pair}))


def as_variant(folder: Path) -> None:
    for path in list(folder.rglob("*.safetensors")):
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))
    (folder / UNET).unlink()


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing key of a UNet": (
        lambda folder: edited(folder / UNET, lambda tensors: tensors.pop("conv_out.bias")),
        r"spoiled/unet: .*1 missing \('conv_out.bias'\)",
    ),
    "an extra key of a VAE": (
        lambda folder: edited(folder / VAE, lambda tensors: tensors.update(more=torch.zeros(2))),
        r"spoiled/vae: .*1 extra \('more'\)",
    ),
    "a misshapen key of a UNet": (
        lambda folder: edited(folder / UNET, lambda tensors: tensors.update({"conv_in.bias": torch.zeros(3)})),
        r"spoiled/unet: .*1 misshapen \('conv_in.bias' is \[3\], not \[16\]\)",
    ),
    "a missing key of a text encoder": (
        lambda folder: edited(folder / TEXT, lambda tensors: tensors.pop(sorted(tensors)[0])),
        r"spoiled/text_encoder: .*1 missing",
    ),
    "an extra key of a text encoder": (
        lambda folder: edited(folder / TEXT, lambda tensors: tensors.update(more=torch.zeros(2))),
        r"spoiled/text_encoder: .*1 extra \('more'\)",
    ),
    "a misshapen key of a text encoder": (
        lambda folder: edited(
            folder / TEXT,
            lambda tensors: tensors.update({key: torch.zeros(3) for key in tensors if "final_layer_norm.bias" in key}),
        ),
        r"spoiled/text_encoder: .*1 misshapen \('.*final_layer_norm.bias'\)",
    ),
    "whole numbers for weights": (
        lambda folder: edited(folder / UNET, lambda tensors: tensors.update({"conv_in.bias": torch.zeros(16).int()})),
        r"spoiled/unet: an unsupported dtype: the checkpoint has conv_in.bias in I32: use a checkpoint in F32",
    ),
    "another width in the configuration": (
        lambda folder: configured(folder, "unet", "cross_attention_dim", 64),
        r"spoiled/unet: .* misshapen",
    ),
    "a truncated file": (
        lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100]),
        "is truncated: its tensors have",
    ),
    "only a pickle": (
        as_pickle,
        r"spoiled/unet: there is no \*.safetensors: convert the weights",
    ),
    "a folder that is missing": (lambda folder: shutil.rmtree(folder / "vae"), "spoiled/vae: "),
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "spoiled: there is no model_index.json"),
    "an index that is no JSON": (
        lambda folder: (folder / "model_index.json").write_text("{"),
        "model_index.json: cannot be read",
    ),
    "another pipeline": (
        lambda folder: (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'),
        "the checkpoint is of 'FluxPipeline': name a checkpoint of StableDiffusionXLPipeline",
    ),
    "a class nobody has": (
        lambda folder: with_class(folder, ["diffusers", "UNet5D"]),
        "neither diffusers nor transformers has 'diffusers.UNet5D'",
    ),
    "a class of a module that would be imported": (
        lambda folder: with_class(folder, ["antigravity", "Unet"]),
        "neither diffusers nor transformers has 'antigravity.Unet'",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_checkpoint_that_does_not_fit_is_one_line(context: EngineContext, checkpoint: Path, case: str) -> None:
    spoil, words = SPOILT[case]
    spoil(checkpoint)
    with pytest.raises(BadInput, match=words) as caught:
        load_engine(model_of(checkpoint), context)
    assert "\n" not in str(caught.value)
    assert caught.value.fix


async def test_files_of_another_variant_are_left_alone(context: EngineContext, checkpoint: Path) -> None:
    as_variant(checkpoint)
    model = model_of(checkpoint)
    with pytest.raises(BadInput, match=r"there is no \*.safetensors"):
        load_engine(model, context)
    engine = load_engine(changed(model, options={**model.card.options, "variant": "fp16"}), context)
    await engine.close()


def test_the_tensors_of_shards_are_those_of_the_whole(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model.fp16-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model.fp16-00002-of-00002.safetensors")
    save_file({"c": torch.zeros(4)}, tmp_path / "model.safetensors")
    assert set(read_tensors(tmp_path, "fp16")) == {"a", "b"}
    assert set(read_tensors(tmp_path)) == {"c"}


def test_an_index_of_an_accepted_pipeline_is_read_whole(checkpoint: Path) -> None:
    index = read_index(checkpoint, ("StableDiffusionXLPipeline",))
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
