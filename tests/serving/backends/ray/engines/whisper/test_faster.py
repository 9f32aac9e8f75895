"""Whisper by CTranslate2: precisions, checkpoints that do not fit, memory, output that is no number."""

import asyncio
import multiprocessing
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from serving.backends.call import Call
from serving.backends.ray.engines.whisper.engine import Sound
from serving.backends.ray.engines.whisper.windows import windows
from serving.errors import BadInput, Cancelled, EngineFailed, ReelmeshError
from tests.servers.tiny import context_in, tiny_engine, tiny_model
from tests.serving.backends.ray.engines.whisper.conftest import Room, tones

NAME = "whisper_large_v3"


def cut(folder: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(data[: len(data) // 2])


def without_bands(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "invalid payload size|incomplete"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: not found: copy it"),
        (lambda folder: (folder / "model.bin").unlink(), r"model\.bin not found"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json: EOF"),
        (lambda folder: (folder / "model.bin").write_bytes(b"\x00" * 64), r"model\.bin|spec|model"),
        (without_bands, "hears 128 mel bands, and 80 are made"),
    ],
    ids=["cut", "no tokenizer", "no model", "broken tokenizer", "zeros", "no mel bands"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, damage: Callable[[Path], object], told: str
) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        damaged(NAME, damage)
    assert "\n" not in str(refused.value)
    assert NAME in str(refused.value)


async def test_int8_weights_hear_about_the_same(tmp_path: Path) -> None:
    engine = tiny_engine("whisper_large_v3_int8", context_in(tmp_path), precision="int8")
    sound = Sound(tuple(windows(tones(1, 3))), "en")
    ran = await engine.runner.run(sound, Call(), None)  # type: ignore[attr-defined]
    assert ran.output.words
    assert engine.network.model.compute_type == "int8_float32"  # type: ignore[attr-defined]
    await engine.close()


def test_a_precision_that_the_device_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fp16 on a CPU"):
        tiny_engine(NAME, context_in(tmp_path), precision="fp16")


async def test_output_that_is_no_number_is_a_failure_and_not_a_silent_answer(damaged: Any) -> None:
    engine = damaged(NAME, _poison)
    for language in ("en", None):
        with pytest.raises(EngineFailed, match="no numbers"):
            await engine.runner.run(Sound(tuple(windows(tones(1, 3))), language), Call(), None)
    await engine.close()


def _poison(folder: Path) -> None:
    """The same network with one weight that is not a number, converted anew."""
    from ctranslate2.converters import TransformersConverter  # brings torch, which the starved child need not load

    original = Path(tiny_model("whisper_transformers").card.source.uri.removeprefix("file:"))
    poisoned = folder.parent / "poisoned"
    shutil.copytree(original, poisoned)
    tensors = load_file(poisoned / "model.safetensors")
    tensors["model.decoder.layers.1.fc2.weight"][0, 0] = np.nan
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    TransformersConverter(str(poisoned)).convert(str(folder.parent / "converted"))
    shutil.copy(folder.parent / "converted" / "model.bin", folder / "model.bin")


async def test_a_cancel_is_heard_in_the_middle_of_a_pass(tmp_path: Path) -> None:
    engine = tiny_engine(NAME, context_in(tmp_path), options={"batch": 12, "beams": 5, "tokens": 224})
    window = windows(tones(1, 30))[0]
    call, told = Call(), list[float]()

    def stop(done: float) -> None:
        told.append(done)
        if len(told) > 3:  # encoding, decoding and aligning begin with one each
            call.cancel()

    call.on_progress = stop
    with pytest.raises(Cancelled):
        await engine.runner.run(Sound((window,) * 12, "en"), call, None)  # type: ignore[attr-defined]
    assert told == [0.0] * 4
    call = Call()
    ran = await engine.runner.run(Sound((window,), "en"), call, None)  # type: ignore[attr-defined]
    assert ran.output.words
    await engine.close()


def test_out_of_memory_names_what_to_lower_and_the_next_request_is_answered() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, second = pool.apply(_starved)
    assert "out of memory: lower options.batch" in first
    assert second == ""


def _starved() -> tuple[str, str]:
    return asyncio.run(_hear_starved())


async def _hear_starved() -> tuple[str, str]:
    room = Room(NAME, options={"batch": 64, "beams": 1, "tokens": 8})
    small = Sound(tuple(windows(tones(1, 3))), "en")
    await room.run(small)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))
    told = []
    for sound in (small._replace(windows=small.windows * 64), small):
        try:
            await room.engine.runner.run(sound, Call(), None)
            told.append("")
        except ReelmeshError as error:
            told.append(f"{type(error).__name__} {error}")
    return told[0], told[1]
