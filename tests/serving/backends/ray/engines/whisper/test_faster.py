"""Whisper by CTranslate2: precisions, checkpoints that do not fit, memory, output that is no number."""

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving.backends.ray.engines.whisper.faster import FasterWhisperEngine
from serving.errors import BadInput, Cancelled, EngineFailed
from tests.servers.tiny import context_in, tiny_engine, tiny_model
from tests.serving.backends.ray.engines import damage, laws
from tests.serving.backends.ray.engines.laws import Stop
from tests.serving.backends.ray.engines.whisper.conftest import Room, run, sound_of, tones
from tests.serving.backends.ray.engines.whisper.starved import NAME, starved


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage.cut("model.bin"), "invalid payload size|incomplete"),
        (damage.removed("tokenizer.json"), r"tokenizer\.json: not found: copy it"),
        (damage.removed("model.bin"), r"model\.bin not found"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json: EOF"),
        (lambda folder: (folder / "model.bin").write_bytes(b"\x00" * 64), r"model\.bin|spec|model"),
        (damage.removed("preprocessor_config.json"), "hears 128 mel bands, and 80 are made"),
    ],
    ids=["cut", "no tokenizer", "no model", "broken tokenizer", "zeros", "no mel bands"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, harm: Callable[[Path], object], told: str
) -> None:
    assert NAME in str(laws.refused_in_one_line(lambda: damaged(NAME, harm), told))


async def test_int8_weights_hear_about_the_same() -> None:
    room = Room("whisper_large_v3_int8", precision="int8")
    assert isinstance(room.engine, FasterWhisperEngine)
    assert (await room.hear(tones(1, 3), language="en")).words
    assert room.engine.network.model.compute_type == "int8_float32"
    await room.close()


def test_a_precision_that_the_device_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fp16 on a CPU"):
        tiny_engine(NAME, context_in(tmp_path), precision="fp16")


async def test_output_that_is_no_number_is_a_failure_and_not_a_silent_answer(damaged: Any) -> None:
    engine = damaged(NAME, _poison)
    for language in ("en", None):
        with pytest.raises(EngineFailed, match="no numbers"):
            await run(engine, sound_of(tones(1, 3), language))
    await engine.close()


def _poison(folder: Path) -> None:
    """The same network with one weight that is not a number, converted anew."""
    from ctranslate2.converters import TransformersConverter

    original = Path(tiny_model("whisper_transformers").card.source.uri.removeprefix("file:"))
    poisoned = folder.parent / "poisoned"
    shutil.copytree(original, poisoned)
    tensors = load_file(poisoned / "model.safetensors")
    tensors["model.decoder.layers.1.fc2.weight"][0, 0] = np.nan
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    TransformersConverter(str(poisoned)).convert(str(folder.parent / "converted"))
    shutil.copy(folder.parent / "converted" / "model.bin", folder / "model.bin")


async def test_a_cancel_is_heard_in_the_middle_of_a_pass() -> None:
    room = Room(NAME, options={"batch": 12, "beams": 5, "tokens": 224})
    short = sound_of(tones(1, 30))
    stop = Stop(patience=3)  # encoding, decoding and aligning begin with one sign each
    with pytest.raises(Cancelled):
        await room.run(short._replace(windows=short.windows * 12), stop.call)
    assert stop.told == [0.0] * 4
    assert (await room.run(short)).output.words
    await room.close()


def test_out_of_memory_names_what_to_lower_and_the_next_request_is_answered() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, second = pool.apply(starved)
    assert "out of memory: lower options.batch" in first
    assert second == ""
