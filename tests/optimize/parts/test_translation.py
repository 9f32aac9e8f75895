"""Parts of translators: four kinds of checkpoints, one declaration; texts stay the same with parts swapped in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.backends.ray.parts.swap import swap_in
from tests.optimize.parts.exported import Recorded, export_part, recorded_family

MARIAN = "opus_mt_en_hi"
TEXTS = (MARIAN, "m2m100_418m", "nllb_600m", "seamless_m4t_v2")
STEP = {
    "input_ids": ["batch", 1],
    "encoder_hidden_states": ["batch", "source", 16],
    "encoder_attention_mask": ["batch", "source"],
    "past_key_values.0.0": ["batch", 2, "past", 8],
    "past_key_values.0.1": ["batch", 2, "past", 8],
    "past_key_values.0.2": ["batch", 2, "source", 8],
    "past_key_values.0.3": ["batch", 2, "source", 8],
}


@pytest.fixture(scope="module", params=TEXTS)
def translated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family(request.param, tmp_path_factory.mktemp(request.param)) as recorded:
        yield recorded


def test_rows_and_both_lengths_vary_and_the_decoder_is_asked_in_two_ways(translated: Recorded) -> None:
    (encoder,) = translated.groups("encoder")
    assert {tensor.name: tensor.axes for tensor in encoder.inputs} == {
        "input_ids": ["batch", "source"],
        "attention_mask": ["batch", "source"],
    }
    first, step = translated.groups("decoder")
    assert {tensor.name: tensor.axes for tensor in step.inputs} == STEP
    # Seamless begins with two tokens, of which the second tells the language.
    tokens = 2 if translated.recording.engine.model.name == "seamless_m4t_v2" else 1
    assert first.inputs[0].axes == ["batch", tokens]
    assert [group.constant_axes() for group in (encoder, first, step)] == [[], [], []]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family(MARIAN, tmp_path_factory.mktemp("marian")) as recorded:
        yield recorded


@pytest.mark.slow_export
def test_both_parts_swapped_in_translate_as_torch_does(marian: Recorded, tmp_path: Path) -> None:
    """Their embedding is that of the scores, too, which torch computes: its numbers stay."""
    swapped = {}
    for name in ("encoder", "decoder"):
        (tmp_path / name).mkdir()
        part = export_part(marian.recording, name, tmp_path / name)
        parity, quality = marian.gated(name, part, tmp_path / name)
        assert max(row.relative for row in parity) < 1e-5
        assert {row.measure: row.value for row in quality} == {"word error rate": 0.0}
        swapped[name] = part
    engine = marian.recording.engine
    standing = [swap_in(engine, tmp_path / name, part, OnnxRunner) for name, part in swapped.items()]
    assert [result.texts for result in marian.again()] == [result.texts for result in marian.recording.results]
    assert [one.calls > 0 for one in standing] == [True, True]
    network = engine.network
    assert network.model.encoder.layers[0].fc1.weight.numel() == network.model.decoder.layers[0].fc1.weight.numel() == 0
    assert network.lm_head.weight.numel() > 0


@pytest.mark.slow_export
@pytest.mark.parametrize("name", ["encoder", "decoder", "speech_encoder"])
def test_seamless_hears_and_reads_by_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    with recorded_family("seamless_m4t_v2", tmp_path / "run") as seamless:
        parity, quality = seamless.gated(name, export_part(seamless.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    assert {row.measure: row.value for row in quality} == {"word error rate": 0.0}
