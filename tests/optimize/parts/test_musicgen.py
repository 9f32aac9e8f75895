"""Parts of MusicGen: prompts, tokens and sound of any length, with guidance and without, by one set of files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.optimize.parts.exported import Recorded, export_part, recorded_family


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("musicgen_small", tmp_path_factory.mktemp("musicgen")) as recorded:
        yield recorded


def test_guidance_is_no_constant_of_the_text_encoder(played: Recorded) -> None:
    (group,) = played.groups("text_encoder")
    assert group.constant_axes() == []
    assert {request.guidance for request in played.recording.requests} == {1.0, 3.0}
    assert "guidance" not in str(group.traced.call)


def test_the_decoder_is_asked_in_two_ways_and_the_codec_in_one(played: Recorded) -> None:
    first, step = played.groups("decoder")
    (codec,) = played.groups("codec")
    assert [group.constant_axes() for group in (first, step, codec)] == [[], [], []]
    assert [tensor.axes for tensor in first.inputs] == [["rows", 1], ["batch", "source", 16], ["batch", "source"]]
    own, encoders = ["batch", 2, "past", 8], ["batch", 2, "source", 8]
    assert [tensor.axes for tensor in step.inputs[3:7]] == [own, own, encoders, encoders]
    assert [tensor.axes for tensor in codec.inputs] == [["batch", 8, "frames"]]
    assert codec.outputs[0].axes[:2] == ["batch", 1]


@pytest.mark.slow_export
@pytest.mark.parametrize("name", ["text_encoder", "decoder", "codec"])
def test_parts_answer_as_torch_does_and_the_music_stays_the_same(played: Recorded, tmp_path: Path, name: str) -> None:
    parity, quality = played.gated(name, export_part(played.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    measures = {row.measure: row.value for row in quality}
    assert measures["length"] == 0
    assert measures["SNR"] > 80
