"""Whisper by transformers: checkpoints that do not fit, output that is no number, beams, English alone."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving.backends.call import Call
from serving.backends.ray.engines.whisper.engine import Sound
from serving.backends.ray.engines.whisper.windows import windows
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import TranscriptionRequest
from tests.serving.backends.ray.engines.whisper.conftest import tones

NAME = "whisper_transformers"
WEIGHT = "model.decoder.layers.1.fc2.weight"


def changed(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def setting(folder: Path, **values: object) -> None:
    file = folder / "generation_config.json"
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: changed(folder, lambda each: each.pop(WEIGHT)), rf"missing {WEIGHT}"),
        (lambda folder: changed(folder, lambda each: each.update(other=np.zeros(3, np.float32))), "unknown other"),
        (
            lambda folder: changed(folder, lambda each: each.update({WEIGHT: each[WEIGHT][:, :8].copy()})),
            rf"misshapen {WEIGHT} is 16x8 and not 16x32",
        ),
        (cut, r"model\.safetensors"),
        (pickled, r"pytorch_model\.bin is a pickle"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: not found"),
        (lambda folder: setting(folder, alignment_heads=None), "lacks alignment_heads"),
    ],
    ids=["missing key", "extra key", "misshapen key", "cut", "pickle", "no tokenizer", "no alignment heads"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, damage: Callable[[Path], object], told: str
) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        damaged(NAME, damage)
    assert "\n" not in str(refused.value)


async def test_output_that_is_no_number_is_a_failure_and_not_a_silent_answer(damaged: Any) -> None:
    engine = damaged(NAME, lambda folder: changed(folder, lambda each: each[WEIGHT].fill(np.nan)))
    for language in ("en", None):
        with pytest.raises(EngineFailed, match="no numbers"):
            await engine.runner.run(Sound(tuple(windows(tones(1, 3))), language), Call(), None)
    await engine.close()


async def test_beams_are_searched_and_half_precision_computes(damaged: Any) -> None:
    options = {"batch": 2, "beams": 3, "tokens": 12}
    engine = damaged(NAME, lambda folder: None, options=options, precision="bf16")
    sound = Sound(tuple(windows(tones(1, 40))), "en")
    first, again = [(await engine.runner.run(sound, Call(), None)).output for _ in range(2)]
    assert first.words
    assert first == again
    await engine.close()


async def test_a_network_that_knows_english_alone_needs_no_language(damaged: Any, tmp_path: Path) -> None:
    def english(folder: Path) -> None:
        setting(folder, is_multilingual=False, lang_to_id=None, task_to_id=None)

    engine = damaged(NAME, english)
    output = (await engine.runner.run(Sound(tuple(windows(tones(1, 3))), None), Call(), None)).output
    assert (output.language, output.probability) == ("en", 1.0)
    with pytest.raises(BadInput, match=r"does not know 'hi'.*use one of en"):
        engine.check(TranscriptionRequest(audio=engine.smallest().audio, language="hi"))
    await engine.close()
