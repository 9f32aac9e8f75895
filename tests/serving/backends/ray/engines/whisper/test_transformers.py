"""Whisper by transformers: checkpoints that do not fit, output that is no number, beams, English alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import TranscriptionRequest
from tests.serving.backends.ray.engines import damage, laws
from tests.serving.backends.ray.engines.whisper.conftest import run, sound_of, tones

NAME = "whisper_transformers"
WEIGHT = "model.decoder.layers.1.fc2.weight"


GENERATION = "generation_config.json"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage.without(WEIGHT), f"missing {WEIGHT}"),
        (damage.with_one_more, "unknown other"),
        (damage.narrowed(WEIGHT, 8), f"misshapen {WEIGHT} is 16x8 and not 16x32"),
        (damage.cut("model.safetensors"), r"model\.safetensors"),
        (damage.pickled, r"pytorch_model\.bin is a pickle"),
        (damage.removed("tokenizer.json"), r"tokenizer\.json: not found"),
        (lambda folder: damage.settings(folder, GENERATION, alignment_heads=None), "lacks alignment_heads"),
    ],
    ids=["missing key", "extra key", "misshapen key", "cut", "pickle", "no tokenizer", "no alignment heads"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, harm: Callable[[Path], object], told: str
) -> None:
    laws.refused_in_one_line(lambda: damaged(NAME, harm), told)


async def test_output_that_is_no_number_is_a_failure_and_not_a_silent_answer(damaged: Any) -> None:
    engine = damaged(NAME, lambda folder: damage.tensors(folder, lambda each: each[WEIGHT].fill(np.nan)))
    for language in ("en", None):
        with pytest.raises(EngineFailed, match="no numbers"):
            await run(engine, sound_of(tones(1, 3), language))
    await engine.close()


async def test_beams_are_searched_and_half_precision_computes(damaged: Any) -> None:
    options = {"batch": 2, "beams": 3, "tokens": 12}
    engine = damaged(NAME, lambda folder: None, options=options, precision="bf16")
    first, again = [(await run(engine, sound_of(tones(1, 40)))).output for _ in range(2)]
    assert first.words
    assert first == again
    await engine.close()


async def test_a_network_that_knows_english_alone_needs_no_language(damaged: Any) -> None:
    def english(folder: Path) -> None:
        damage.settings(folder, GENERATION, is_multilingual=False, lang_to_id=None, task_to_id=None)

    engine = damaged(NAME, english)
    output = (await run(engine, sound_of(tones(1, 3), None))).output
    assert (output.language, output.probability) == ("en", 1.0)
    with pytest.raises(BadInput, match=r"does not know 'hi'.*use one of en"):
        engine.check(TranscriptionRequest(audio=engine.smallest().audio, language="hi"))
    await engine.close()
