"""Families of pipelines against their bounds: checkpoints that do not fit, memory that ends, savers, batches."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.engines.diffusion import memory
from serving.backends.ray.engines.network.switches import Switches
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput
from serving.protocol.tasks import MusicRequest, TaskRequest, TextToVideoRequest
from serving.repository.model import Adapter, Source
from tests.servers.tiny import changed, context_in, tiny_engine, tiny_model
from tests.serving.backends.ray.engines import laws

CLIP = TextToVideoRequest(prompt="a red fox", width=64, height=64, duration_s=1, fps=8, steps=2, seed=3)
MUSIC = MusicRequest(prompt="a bell", duration_s=1, steps=2, seed=3)


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path)


def without(tensors: dict[str, Any], name: str) -> None:
    tensors.pop(next(key for key in sorted(tensors) if name in key))


def with_more(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = torch.zeros(2)


def misshapen(tensors: dict[str, Any], name: str) -> None:
    tensors[next(key for key in sorted(tensors) if name in key)] = torch.zeros(3)


@pytest.mark.parametrize(
    ("name", "part", "edit", "tensor", "words"),
    [
        ("cogvideox_2b", "text_encoder", without, "layer_norm", "1 missing"),
        ("cogvideox_5b_i2v", "transformer", without, "pos_embedding", r"1 missing \('patch_embed.pos_embedding'\)"),
        ("ltx_video", "vae", misshapen, "conv_in", r"1 misshapen \('.*conv_in"),
        ("ltx2", "connectors", without, "registers", r"1 missing \('.*registers"),
        ("ltx2", "vocoder", with_more, "more", r"1 extra \('more'\)"),
        ("stable_audio", "projection_model", with_more, "more", r"1 extra \('more'\)"),
        ("ace_step", "condition_encoder", without, "null_condition", r"1 missing \('null_condition_emb'\)"),
        ("ace_step", "vae", misshapen, "weight_g", r"1 misshapen \('.*weight_g"),
    ],
    ids=lambda value: value if isinstance(value, str) and "1 " not in value else "",
)
def test_parts_that_only_these_pipelines_have_are_checked_too(
    name: str, part: str, edit: Callable[[dict[str, Any], str], None], tensor: str, words: str, tmp_path: Path
) -> None:
    context, folder = context_in(tmp_path), tmp_path / "spoilt"
    shutil.copytree(tiny_checkpoint(name), folder)
    (path,) = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    edit(tensors, tensor)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(BadInput, match=f"spoilt/{part}: .*{words}") as caught:
        load_engine(changed(tiny_model(name), source=Source(uri=f"file:{folder}")), context)
    assert "\n" not in str(caught.value)


def test_a_card_that_names_another_pipeline_than_the_checkpoint_is_refused(context: EngineContext) -> None:
    model = tiny_model("cogvideox_2b")
    with pytest.raises(BadInput, match="is of 'CogVideoXPipeline': name a checkpoint of LTXCond"):
        load_engine(changed(model, architecture="LTXPipeline"), context)


async def test_memory_that_ends_is_told_with_what_to_lower_and_the_next_request_is_as_before(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.serving.backends.ray.engines.diffusion.starved", str(tmp_path),
        "sdxl", "ltx2", "ace_step",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaint = await child.communicate()
    assert child.returncode == 0, complaint.decode()[-2000:]
    found = [json.loads(line) for line in told.decode().splitlines()[-3:]]
    share = "or give the model a larger share"
    assert [error for _, error, _ in found] == [
        [f"width: sdxl ran out of memory: lower width, height, {share}", True],
        [f"duration_s: ltx2 ran out of memory: lower duration_s, width, height, {share}", True],
        [f"duration_s: ace_step ran out of memory: lower duration_s, {share}", True],
    ]
    assert [before for before, _, _ in found] == [after for _, _, after in found]


@pytest.mark.parametrize(
    ("name", "request_", "most"),
    [
        ("cogvideox_5b", CLIP, None),
        ("ltx_video", CLIP, 1),
        ("ltx2", CLIP, 1),
        ("stable_audio", MUSIC, 1e-4),
        ("ace_step", MUSIC, 1e-4),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_savers_of_memory_leave_the_output_what_it_was(
    name: str, request_: TaskRequest, most: float | None, context: EngineContext
) -> None:
    """CogVideoX normalises over a whole tile, so that random weights show the tiles; its size and numbers hold."""
    engine: Any = tiny_engine(name, context)
    (before,) = await laws.outputs(engine, [request_])
    memory.turn_on(engine.pipeline, Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True), "cpu")
    assert engine.pipeline.vae.use_tiling
    (after,) = await laws.outputs(engine, [request_])
    first, second = (getattr(one, "frames", one).astype(np.float32) for one in (before, after))
    assert first.shape == second.shape
    if most is not None:
        assert np.abs(first - second).max() <= most
    await engine.close()


@pytest.mark.parametrize(
    ("name", "request_"),
    [("cogvideox_5b", CLIP), ("ltx_video", CLIP), ("ltx2", CLIP), ("stable_audio", MUSIC), ("ace_step", MUSIC)],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_half_precision_runs_from_words_to_file(name: str, request_: TaskRequest, context: EngineContext) -> None:
    engine: Any = tiny_engine(name, context, precision="bf16")
    result = await engine.run(request_, Call())
    assert result.made.precision == "bf16"
    parts = [part for part in engine.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {str(part.dtype) for part in parts} == {"torch.bfloat16"}
    await engine.close()


@pytest.mark.parametrize("name", ["cogvideox_2b", "ltx_video", "ltx2"])
async def test_a_fine_tune_of_a_transformer_takes_effect_and_leaves_nothing(
    name: str, context: EngineContext, tmp_path: Path
) -> None:
    plain: Any = tiny_engine(name, context)
    numbers, tensors = torch.Generator().manual_seed(1), {}
    for layer, module in plain.pipeline.transformer.named_modules():
        if layer.endswith("to_q"):
            outs, ins = module.weight.shape
            tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, ins, generator=numbers)
            tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(outs, 4, generator=numbers)
    before = await laws.sha(plain, CLIP)
    await plain.close()
    (tmp_path / "ink").mkdir()
    save_file(tensors, tmp_path / "ink" / "pytorch_lora_weights.safetensors")
    source = Source(uri=f"file:{tmp_path / 'ink'}")
    engine: Any = tiny_engine(name, context, adapters={"ink": Adapter(source=source)})
    assert await laws.sha(engine, CLIP, adapter="ink") != before
    assert await laws.sha(engine, CLIP) == before
    await engine.close()


async def test_two_batches_of_other_lengths_run_one_after_the_other(context: EngineContext) -> None:
    """A request that fits no batch waits for it, and is answered."""
    engine: Any = tiny_engine("ltx_video", context)
    requests = [CLIP, CLIP.model_copy(update={"seed": 4}), CLIP.model_copy(update={"duration_s": 2, "fps": 8})]
    found = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
    assert [(result.made.batch, result.frames) for result in found] == [(2, 8), (2, 8), (1, 16)]
    await engine.close()
