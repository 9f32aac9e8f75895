"""Parts of Whisper: a decoder that is asked in two ways, and words with times that stay the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.backends.ray.parts.swap import swap_in
from tests.optimize.parts.exported import Recorded, export_part, recorded_family


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("whisper_transformers", tmp_path_factory.mktemp("whisper")) as recorded:
        yield recorded


def test_windows_and_tokens_vary_and_the_decoder_is_asked_in_two_ways(heard: Recorded) -> None:
    (encoder,) = heard.groups("encoder")
    assert [tensor.axes for tensor in encoder.inputs] == [["batch", 128, 3000]]
    first, step = heard.groups("decoder")
    assert [group.constant_axes() for group in (encoder, first, step)] == [[], [], []]
    assert {tensor.name: tensor.axes for tensor in first.inputs} == {
        "input_ids": ["batch", "tokens"],
        "encoder_hidden_states": ["batch", 1500, 16],
    }
    assert {tensor.name: tensor.axes for tensor in step.inputs} == {
        "input_ids": ["batch", 1],
        "encoder_hidden_states": ["batch", 1500, 16],
        **{f"past_key_values.{layer}.{one}": ["batch", 2, "past", 8] for layer in (0, 1) for one in (0, 1)},
        **{f"past_key_values.{layer}.{one}": ["batch", 2, 1500, 8] for layer in (0, 1) for one in (2, 3)},
    }
    handed_on = {f"output.past_key_values.{layer}.{one}" for layer in (0, 1) for one in (0, 1)}
    assert {tensor.name for tensor in step.outputs} == {"output.last_hidden_state"} | handed_on


def test_of_a_text_calls_are_kept_that_lie_further_and_further_apart(heard: Recorded) -> None:
    calls = [call for call in heard.recording.calls["decoder"] if "past_key_values.0.0" in call.inputs]
    past = [call.inputs["past_key_values.0.0"].shape[2] for call in calls if len(call.inputs["input_ids"]) == 1]
    assert past[:6] == [3, 4, 5, 7, 11, 19]
    assert {len(call.inputs["input_ids"]) for call in calls} == {1, 2, 3}


def test_the_encoder_answers_as_torch_does_and_the_words_stay_the_same(heard: Recorded, tmp_path: Path) -> None:
    parity, quality = heard.gated("encoder", export_part(heard.recording, "encoder", tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    assert {row.measure: row.value for row in quality} == {"word error rate": 0.0, "times": 0.0}


@pytest.mark.slow_export
def test_the_decoder_steps_in_the_place_of_torchs_which_still_finds_the_times(heard: Recorded, tmp_path: Path) -> None:
    part = export_part(heard.recording, "decoder", tmp_path)
    parity, quality = heard.gated("decoder", part, tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    assert {row.measure: row.value for row in quality} == {"word error rate": 0.0, "times": 0.0}
    swapped = swap_in(heard.recording.engine, tmp_path, part, OnnxRunner)
    assert part.keeps
    assert [result.words for result in heard.again()] == [result.words for result in heard.recording.results]
    assert swapped.calls > 3 * 20
